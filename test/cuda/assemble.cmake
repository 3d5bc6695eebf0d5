# Compiles PROGRAM to PTX and has PTXAS assemble it, for both engines, in TF32 and in f64, for an old and a new architecture. No kernel may need local memory: a stack, or spilled registers.

cmake_minimum_required(VERSION 3.20)

# But for one register (4 bytes, a stack of 8), which ptxas saves around its own subroutines of 64-bit division, of integers and of f64.
set(allowed 8)

# What does not hold yet, by name: a kernel that joins layer normalization's rows with AdamW's powers, one of a sum of products and AdamW's division in f64, and the condition of a loop in f64,
# keep two numbers around such a subroutine on sm_90.
get_filename_component(name ${PROGRAM} NAME_WE)
set(exceptions gpt/step_2/sm_90 gpt/step_186/sm_90 loops/until_6/sm_90)

foreach(flags "--gemm=own" "--gemm=own --tf32" "--gemm=cublaslt" "--float=f64")
  separate_arguments(words UNIX_COMMAND "${flags}")
  execute_process(COMMAND ${DLC} ${PROGRAM} --target=cuda ${words} --emit=ptx -o ${OUTPUT}.ptx RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "dlc refuses ${PROGRAM}")
  endif()
  foreach(arch sm_80 sm_90)
    execute_process(COMMAND ${PTXAS} -v -arch=${arch} ${OUTPUT}.ptx -o ${OUTPUT}.cubin RESULT_VARIABLE failed ERROR_VARIABLE message OUTPUT_VARIABLE message)
    if(failed)
      message(FATAL_ERROR "ptxas refuses ${PROGRAM} for ${arch}: ${message}")
    endif()
    string(REGEX MATCHALL "Function properties for [^\n]*\n *[0-9]+ bytes stack frame" kernels "${message}")
    list(LENGTH kernels count)
    if(NOT count)
      message(FATAL_ERROR "ptxas does not say what memory the kernels of ${PROGRAM} need: ${message}")
    endif()
    foreach(kernel IN LISTS kernels)
      string(REGEX MATCH "Function properties for ([^\n]*)\n *([0-9]+) bytes" matched "${kernel}")
      set(symbol ${CMAKE_MATCH_1})
      set(bytes ${CMAKE_MATCH_2})
      if("${name}/${symbol}/${arch}" IN_LIST exceptions AND NOT bytes GREATER 16)
        continue()
      endif()
      if(bytes GREATER allowed)
        message(FATAL_ERROR "kernel ${symbol} of ${PROGRAM} (${flags}, ${arch}) needs ${bytes} bytes of local memory, ${allowed} allowed")
      endif()
    endforeach()
  endforeach()
endforeach()
message("1 passed, 0 failed")
