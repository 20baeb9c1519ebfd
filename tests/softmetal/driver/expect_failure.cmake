# cmake -DCOMMAND=program;argument... -DWORDS=pattern -P expect_failure.cmake
# Passes where the program fails, and says why.
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE result OUTPUT_VARIABLE said ERROR_VARIABLE said)
message("${said}")
if(result STREQUAL "0")
  message(FATAL_ERROR "it should have failed")
elseif(NOT said MATCHES "${WORDS}")
  message(FATAL_ERROR "it failed (${result}), but not with the words: ${WORDS}")
endif()
message("it failed as it should: ${result}")
