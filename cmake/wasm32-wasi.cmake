# WebAssembly with the distribution's clang 14, lld 14 and wasi-libc: programs
# that a runtime with WASI starts, Node's node:wasi for one.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
set(CMAKE_C_COMPILER clang-14)
set(CMAKE_C_COMPILER_TARGET wasm32-wasi)
set(CMAKE_AR llvm-ar-14 CACHE STRING "")
set(CMAKE_RANLIB llvm-ranlib-14 CACHE STRING "")
set(CMAKE_EXECUTABLE_SUFFIX_C .wasm)

# What every engine that matters has had for years.  Thread-local variables go
# with atomics only, and one thread needs none.
set(CMAKE_C_FLAGS_INIT
    "-mbulk-memory -msign-ext -mnontrapping-fptoint -D_Thread_local=")
# Headers of WebAssembly's C library alone: clang would look at the host's, too.
add_compile_options(-nostdlibinc "SHELL:-isystem /usr/include/wasm32-wasi")
# The stack first, so that one that is too deep traps and writes over nothing.
# -O0 is for the linker alone: else clang has a wasm-opt that happens to be on
# PATH go over the program.
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "-O0 -Wl,--stack-first -Wl,-z,stack-size=1048576")

set(CMAKE_FIND_ROOT_PATH /usr/lib/wasm32-wasi)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
