# The target doctest::doctest: the system's, or downloaded.
find_package(doctest QUIET)
if(NOT doctest_FOUND)
  include(FetchContent)
  FetchContent_Declare(doctest
    GIT_REPOSITORY https://github.com/doctest/doctest
    GIT_TAG v2.4.12
    GIT_SHALLOW ON)
  set(DOCTEST_WITH_TESTS OFF CACHE INTERNAL "")
  set(DOCTEST_NO_INSTALL ON CACHE INTERNAL "")
  FetchContent_MakeAvailable(doctest)
  # Its headers are not ours to keep free of warnings.
  get_target_property(include_directories doctest INTERFACE_INCLUDE_DIRECTORIES)
  set_target_properties(doctest PROPERTIES
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${include_directories}")
endif()
