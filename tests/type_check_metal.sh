#!/bin/sh
# Type-checks the Metal backend against the public headers of a real SDK, on any machine with clang.
#   tests/type_check_metal.sh SDK     the folder that holds System/Library/Frameworks and usr/include
# CXX names the compiler. Nothing is linked, and nothing is read but the SDK and src.
set -eu
sdk=${1:?"usage: $0 SDK"}
cd "$(dirname "$0")/.."
failed=''
for target in arm64-apple-macos13 arm64-apple-macos11 x86_64-apple-macos10.15; do
  bad=''
  for file in $(find src/metal -name '*.mm' | sort); do
    "${CXX:-clang++}" -x objective-c++ -std=c++20 -fno-objc-arc -fsyntax-only -Wall -Wextra -Werror \
      -Werror=unguarded-availability -Isrc -target "$target" -isysroot "$sdk" -stdlib=libc++ "$file" || bad="$bad $file"
  done
  echo "$target: ${bad:-ok}"
  failed=$failed$bad
done
[ -z "$failed" ]
