if(MPSNN_LOSS_SANITIZE)
  if(MPSNN_LOSS_SANITIZE MATCHES "thread" AND MPSNN_LOSS_SANITIZE MATCHES "address")
    message(FATAL_ERROR "MPSNN_LOSS_SANITIZE: address and thread exclude each other")
  endif()
  target_compile_options(mpsnn_options INTERFACE
    -fsanitize=${MPSNN_LOSS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(mpsnn_options INTERFACE -fsanitize=${MPSNN_LOSS_SANITIZE})
endif()
