# What every target of the project shares, and the rule that folders may not reach into each other.

# ccache, told to forget where the clone lies, so that a fresh clone finds what another one compiled.
find_program(ATTNFLEET_CCACHE ccache)
if(ATTNFLEET_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${ATTNFLEET_CCACHE})
endif()

add_library(attnfleet_options INTERFACE)
target_compile_options(
  attnfleet_options
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
            -ffile-prefix-map=${CMAKE_SOURCE_DIR}/= -ffile-prefix-map=${CMAKE_BINARY_DIR}/=build/)
# GCC 12 warns of overlaps inside its own std::string (GCC bug 105651).
target_compile_options(attnfleet_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_compile_definitions(attnfleet_options INTERFACE ATTNFLEET_VERSION="${PROJECT_VERSION}")
if(ATTNFLEET_SANITIZE)
  add_compile_options(-fsanitize=${ATTNFLEET_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ATTNFLEET_SANITIZE})
endif()

# attnfleet_include_root(TARGET FOLDER)
# Headers are included as "FOLDER/name.h", and a folder is visible only to targets that link its library: the include
# path is a generated folder that holds one link, never the project's root.
function(attnfleet_include_root target folder)
  set(root ${CMAKE_BINARY_DIR}/include-roots/${folder})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${folder} ${root}/${folder} SYMBOLIC)
  target_include_directories(${target} PUBLIC ${root})
endfunction()

# server, worker and client depend on proto and never on each other. The include roots make a forbidden #include fail;
# this makes a forbidden link fail, at configure time.
function(attnfleet_check_layers)
  foreach(folder IN ITEMS proto server worker client)
    set(forbidden server worker client)
    list(REMOVE_ITEM forbidden ${folder})
    attnfleet_targets_below(${CMAKE_SOURCE_DIR}/${folder} targets)
    foreach(target IN LISTS targets)
      get_target_property(links ${target} LINK_LIBRARIES)
      foreach(other IN LISTS forbidden)
        foreach(link IN LISTS links)
          if(link MATCHES "^attnfleet_${other}")
            message(FATAL_ERROR "${folder}/: target ${target} links ${link}. server, worker and client may use proto "
                                "and themselves, never each other: move what they share to proto/.")
          endif()
        endforeach()
      endforeach()
    endforeach()
  endforeach()
endfunction()

function(attnfleet_targets_below directory result)
  get_property(targets DIRECTORY ${directory} PROPERTY BUILDSYSTEM_TARGETS)
  get_property(children DIRECTORY ${directory} PROPERTY SUBDIRECTORIES)
  foreach(child IN LISTS children)
    attnfleet_targets_below(${child} more)
    list(APPEND targets ${more})
  endforeach()
  set(${result} ${targets} PARENT_SCOPE)
endfunction()

# attnfleet_program(TARGET NAME): installs TARGET as program NAME at the top of the installed folder, with lib/ as its run
# path. Old-style run path (RPATH): it also serves the libraries' own dependencies, which RUNPATH would not.
function(attnfleet_program target name)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name} INSTALL_RPATH "$ORIGIN/lib")
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
  install(TARGETS ${target} RUNTIME_DEPENDENCY_SET attnfleet_libraries RUNTIME DESTINATION .)
  set_property(GLOBAL APPEND PROPERTY attnfleet_program_targets ${target})
endfunction()
