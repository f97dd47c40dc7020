# LibTorch and the CUDA toolkit, for the trainer alone.
#
#   attnfleet::torch       headers, libtorch_cpu and libc10
#   attnfleet::torch_cuda  the same with libtorch_cuda, libc10_cuda and cudart; exists only where nvcc is found
#   ATTNFLEET_TORCH_DIR    the folder that was taken
#
# Not find_package(Torch): the PyPI wheel's package demands CUDA and links all of libtorch_cuda, whereas one trainer is to
# run on every machine and load the CUDA module where there is a GPU.

set(ATTNFLEET_TORCH_NEEDED 2.11)
set(ATTNFLEET_TORCH_DIR "${ATTNFLEET_TORCH}")
if(NOT ATTNFLEET_TORCH_DIR)
  set(ATTNFLEET_TORCH_DIR ${CMAKE_SOURCE_DIR}/.deps/python/torch)
endif()
if(NOT EXISTS ${ATTNFLEET_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "No LibTorch in ${ATTNFLEET_TORCH_DIR} (lib/libtorch_cpu.so is missing). Run deploy/quickstart.sh, "
                      "which installs it, or give -DATTNFLEET_TORCH=DIR, the torch folder of PyTorch "
                      "${ATTNFLEET_TORCH_NEEDED}, or -DATTNFLEET_TRAINER=OFF to build without the trainer.")
endif()
file(STRINGS ${ATTNFLEET_TORCH_DIR}/include/torch/headeronly/version.h version_lines
     REGEX "#define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" ATTNFLEET_TORCH_FOUND "${version_lines}")
if(NOT ATTNFLEET_TORCH_FOUND STREQUAL ATTNFLEET_TORCH_NEEDED)
  message(FATAL_ERROR "LibTorch in ${ATTNFLEET_TORCH_DIR} is version ${ATTNFLEET_TORCH_FOUND}; the trainer needs "
                      "${ATTNFLEET_TORCH_NEEDED}.x. Give another folder with -DATTNFLEET_TORCH=DIR.")
endif()

add_library(attnfleet_torch INTERFACE)
add_library(attnfleet::torch ALIAS attnfleet_torch)
target_include_directories(
  attnfleet_torch SYSTEM INTERFACE ${ATTNFLEET_TORCH_DIR}/include
                                   ${ATTNFLEET_TORCH_DIR}/include/torch/csrc/api/include)
# A machine without a GPU lacks most of the CUDA libraries that LibTorch itself is linked with.
target_link_options(attnfleet_torch INTERFACE -Wl,--allow-shlib-undefined)
target_link_libraries(attnfleet_torch INTERFACE ${ATTNFLEET_TORCH_DIR}/lib/libtorch_cpu.so
                                                ${ATTNFLEET_TORCH_DIR}/lib/libc10.so)

# nvcc: the machine's own, or the PyPI wheels beside LibTorch.
set(wheel_cuda ${ATTNFLEET_TORCH_DIR}/../nvidia/cu13)
find_program(ATTNFLEET_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH
             PATHS /usr/local/cuda ${wheel_cuda} PATH_SUFFIXES bin)
if(ATTNFLEET_NVCC)
  get_filename_component(nvcc_path ${ATTNFLEET_NVCC} REALPATH)
  get_filename_component(cuda_root ${nvcc_path} DIRECTORY)
  get_filename_component(cuda_root ${cuda_root} DIRECTORY)
  find_path(ATTNFLEET_CUDA_INCLUDE cuda_runtime_api.h HINTS ${cuda_root}/include ${wheel_cuda}/include)
  find_library(ATTNFLEET_CUDART NAMES cudart libcudart.so.13
               HINTS ${cuda_root}/lib64 ${cuda_root}/lib ${wheel_cuda}/lib NO_DEFAULT_PATH)
endif()
if(ATTNFLEET_NVCC AND ATTNFLEET_CUDA_INCLUDE AND ATTNFLEET_CUDART)
  add_library(attnfleet_torch_cuda INTERFACE)
  add_library(attnfleet::torch_cuda ALIAS attnfleet_torch_cuda)
  target_include_directories(attnfleet_torch_cuda SYSTEM INTERFACE ${ATTNFLEET_CUDA_INCLUDE})
  target_link_libraries(
    attnfleet_torch_cuda INTERFACE attnfleet_torch ${ATTNFLEET_TORCH_DIR}/lib/libtorch_cuda.so
                                   ${ATTNFLEET_TORCH_DIR}/lib/libc10_cuda.so ${ATTNFLEET_CUDART})
elseif(ATTNFLEET_NVCC)
  message(STATUS "attnfleet: the CUDA module is not built: ${ATTNFLEET_NVCC} has no cuda_runtime_api.h or libcudart "
                 "beside it")
else()
  message(STATUS "attnfleet: the CUDA module is not built: no nvcc was found")
endif()
