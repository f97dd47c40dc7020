// The floor of the coordinator benchmark: posix_spawn and wait in a loop, N children at a time, with nothing around it.
//   spawn_loop COUNT PARALLEL PROGRAM [ARG ...]     prints seconds and processes per second

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  const int count = argc > 3 ? std::atoi(argv[1]) : 0;
  const int parallel = argc > 3 ? std::atoi(argv[2]) : 0;
  if (count <= 0 || parallel <= 0) {
    std::fprintf(stderr, "usage: spawn_loop COUNT PARALLEL PROGRAM [ARG ...]\n");
    return 2;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  const auto start = std::chrono::steady_clock::now();
  int started = 0;
  int running = 0;
  while (started < count || running > 0) {
    while (started < count && running < parallel) {
      pid_t pid = -1;
      if (posix_spawn(&pid, argv[3], &actions, nullptr, argv + 3, environ) != 0) {
        std::perror(argv[3]);
        return 1;
      }
      ++started;
      ++running;
    }
    int status = 0;
    if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      std::fprintf(stderr, "%s failed\n", argv[3]);
      return 1;
    }
    --running;
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%.3f %.1f\n", seconds.count(), count / seconds.count());
  return 0;
}
