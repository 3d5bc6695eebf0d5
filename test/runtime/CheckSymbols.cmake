# cmake -DNM=… -DLIBRARY=… -P CheckSymbols.cmake: the runtime needs nothing but libc, libm and pthread, and what of these is
# in libc.so.6 itself (pthread_atfork and atexit, for two, are not: artefacts link without libc_nonshared.a).
set(allowed
  __errno_location __sched_cpualloc __sched_cpucount __sched_cpufree sched_getaffinity syscall sysconf getpid
  aligned_alloc calloc malloc realloc free mmap munmap madvise
  bcmp memchr memcmp memcpy memmove memset qsort snprintf vsnprintf
  strchr strcmp strcspn strlen strncmp strrchr strerrordesc_np
  access close fchmod fstat fsync open pread realpath rename stat unlink writev
  clock_gettime dlclose dlerror dlopen dlsym
  pthread_attr_destroy pthread_attr_init pthread_attr_setstacksize pthread_create pthread_join pthread_sigmask
  pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_unlock
  sigaddset sigemptyset sigfillset sigismember sigpending sigtimedwait
  _GLOBAL_OFFSET_TABLE_)
execute_process(COMMAND ${NM} -g ${LIBRARY} OUTPUT_VARIABLE text RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${NM} failed")
endif()
string(REGEX MATCHALL "[^\n]+" lines "${text}")
set(defined)
set(undefined)
foreach(line IN LISTS lines)
  if(line MATCHES "^ +[Uw] ([^ ]+)$")
    list(APPEND undefined ${CMAKE_MATCH_1})
  elseif(line MATCHES "^[0-9a-f]+ [A-Z] ([^ ]+)$")
    list(APPEND defined ${CMAKE_MATCH_1})
    if(NOT CMAKE_MATCH_1 MATCHES "^dlrt_")
      message(SEND_ERROR "global symbol without the runtime's prefix: ${CMAKE_MATCH_1}")
    endif()
  endif()
endforeach()
if(NOT defined)
  message(FATAL_ERROR "no symbols in ${LIBRARY}")
endif()
list(REMOVE_DUPLICATES undefined)
list(REMOVE_ITEM undefined ${defined} ${allowed})
if(undefined)
  message(FATAL_ERROR "the runtime needs more than it may: ${undefined}")
endif()
