// The one place of the tests with @try and @catch (see cmake/objcxx_personality).
#pragma once
#include <functional>
#include <string>

/// Runs `action`; the name of the NSException that it raised, or nothing.
std::string exception_of(const std::function<void()>& action);
