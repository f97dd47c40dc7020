// attnfleet-trainer-double: takes the flags of attnfleet-trainer and writes the same JSON Lines, without training
// anything. Figures follow from the shape alone, so tests can expect them. Of its backends "fused" is for CUDA alone.
// Faults are asked for with
//
//   ATTNFLEET_DOUBLE=SELECTOR:BEHAVIOUR,...    the first selector that fits counts
//   SELECTOR   BACKEND, BACKEND@BATCHxLENGTH, *, or "list" for --list-backends
//   BEHAVIOUR  measured        result at once (the default)
//              contaminated=SEED  measured, as if throttled while another process was on the GPU; without =SEED
//                              each run, else the one with that seed
//              slower=FACTOR   measured, at 1/FACTOR of the speed, as on a GPU that is not well
//              slow=SECONDS    progress five times a second, then a result
//              oom | unsupported | failed        results of that outcome
//              crash=SIGNAL | exit=STATUS        no result
//              crash-first=FILE                  SIGSEGV unless FILE exists, which is then made
//              hang | stubborn                   progress, then nothing; stubborn ignores SIGTERM too
//              unkillable      like hang, out of its process group: signals to that miss it
//              unkillable=LINE the same with LINE instead of progress
//              linger          result, then it does not exit
//              garbage | half | huge             a line that is no JSON; half a line; a line without end
//              chatty=BYTES    so many bytes on standard error, then exit status 1
//              binary          bytes on standard error that are no text, then exit status 1
//              orphan          leaves a child of its own behind that holds its streams
//   ATTNFLEET_DOUBLE_GPU=UUID  results as of a GPU, whatever --device says
//   ATTNFLEET_DOUBLE_LOG=FILE  one line for each run that is started: PID ARGUMENT ...
//   ATTNFLEET_DOUBLE_ENDS=FILE  one line for each measurement, just before it is written: PID
//
// In C++'s smaller half and with system calls: a benchmark measures the start of this process.

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

struct Arguments {
  std::string backend = "eager";
  std::string device = "cpu";
  std::string precision = "auto";
  std::string step = "reference";
  int batch = 1;
  int sequence_length = 64;
  int warmup = 5;
  int steps = 40;
  unsigned long long seed = 1;
  long parent_pid = 0;
  std::string gpu;  // UUID
  std::string dropout_placement = "probabilities";
  bool check = false;
  bool list = false;
};

struct Behaviour {
  std::string name = "measured";
  std::string value;
};

bool Value(std::string_view argument, std::string_view flag, std::string& value) {
  if (argument.substr(0, flag.size()) != flag || argument.size() <= flag.size() || argument[flag.size()] != '=') {
    return false;
  }
  value = argument.substr(flag.size() + 1);
  return true;
}

Arguments Parse(int argc, char** argv) {
  Arguments result;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    std::string value;
    if (argument == "--list-backends") result.list = true;
    if (Value(argument, "--backend", value)) result.backend = value;
    if (Value(argument, "--device", value)) result.device = value;
    if (Value(argument, "--precision", value)) result.precision = value;
    if (Value(argument, "--step", value)) result.step = value;
    if (Value(argument, "--batch", value)) result.batch = std::atoi(value.c_str());
    if (Value(argument, "--sequence-length", value)) result.sequence_length = std::atoi(value.c_str());
    if (Value(argument, "--warmup", value)) result.warmup = std::atoi(value.c_str());
    if (Value(argument, "--steps", value)) result.steps = std::atoi(value.c_str());
    if (Value(argument, "--seed", value)) result.seed = std::strtoull(value.c_str(), nullptr, 10);
    if (Value(argument, "--dropout-placement", value)) result.dropout_placement = value;
    if (Value(argument, "--check", value)) result.check = value == "on" || value == "true";
    if (Value(argument, "--parent-pid", value)) result.parent_pid = std::atol(value.c_str());
  }
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (result.device == "cuda" && visible != nullptr) result.gpu = visible;
  if (const char* pretended = std::getenv("ATTNFLEET_DOUBLE_GPU"); pretended != nullptr && *pretended != '\0') {
    result.device = "cuda";
    result.gpu = pretended;
  }
  return result;
}

std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string Format(const char* format, ...) {
  std::array<char, 1024> text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  return text.data();
}

void Write(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t length = write(descriptor, text.data(), text.size());
    if (length <= 0) _exit(1);  // nobody reads any more
    text.remove_prefix(static_cast<size_t>(length));
  }
}

std::string ShapeOf(const Arguments& arguments) { return Format("%dx%d", arguments.batch, arguments.sequence_length); }

Behaviour Choose(const Arguments& arguments) {
  const char* rules = std::getenv("ATTNFLEET_DOUBLE");
  std::string_view left = rules != nullptr ? rules : "";
  const std::string with_shape = arguments.backend + "@" + ShapeOf(arguments);
  while (!left.empty()) {
    const std::string_view rule = left.substr(0, left.find(','));
    left.remove_prefix(std::min(left.size(), rule.size() + 1));
    const size_t colon = rule.find(':');
    if (colon == std::string_view::npos) {
      Write(STDERR_FILENO, Format("ATTNFLEET_DOUBLE: \"%s\" is no SELECTOR:BEHAVIOUR\n", std::string(rule).c_str()));
      std::exit(2);
    }
    const std::string_view selector = rule.substr(0, colon);
    const bool fits = arguments.list ? selector == "list"
                                     : selector == "*" || selector == arguments.backend || selector == with_shape;
    if (!fits) continue;
    const std::string_view behaviour = rule.substr(colon + 1);
    const size_t equals = behaviour.find('=');
    if (equals == std::string_view::npos) return {std::string(behaviour), ""};
    return {std::string(behaviour.substr(0, equals)), std::string(behaviour.substr(equals + 1))};
  }
  return {};
}

// To the file that a variable names: this process's id, and `more`.
void LogTo(const char* variable, const std::string& more) {
  const char* path = std::getenv(variable);
  if (path == nullptr || *path == '\0') return;
  const int descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return;
  Write(descriptor, Format("%d", static_cast<int>(getpid())) + more + "\n");
  close(descriptor);
}

void LogStart(int argc, char** argv) {
  std::string arguments;
  for (int i = 1; i < argc; ++i) arguments += std::string(" ") + argv[i];
  LogTo("ATTNFLEET_DOUBLE_LOG", arguments);
}

void ListBackends() {
  std::string text = "{\"backends\":[";
  for (const char* name : {"eager", "sdpa", "flash2", "fused"}) {
    if (text.back() == '}') text += ',';
    const bool cpu = std::string_view(name) != "fused";
    text += Format("{\"name\":\"%s\",\"description\":\"%s, pretended\",\"devices\":[%s\"DEVICE_KIND_CUDA\"]}", name,
                   name, cpu ? "\"DEVICE_KIND_CPU\"," : "");
  }
  text +=
      "],\"steps\":[\"TRAINING_STEP_REFERENCE\",\"TRAINING_STEP_FUSED\",\"TRAINING_STEP_FUSED_BF16_STREAM\"],"
      "\"libtorch_version\":\"2.11.0+double\","
      "\"libtorch_directory\":\"trainer-double\",\"cuda_module\":true,"
      "\"trainer_version\":\"" ATTNFLEET_VERSION "\"}\n";
  Write(STDOUT_FILENO, text);
}

std::string EnvironmentOf(const Arguments& arguments) {
  const bool cuda = arguments.device == "cuda";
  const char* precision = arguments.precision != "auto" ? arguments.precision.c_str() : cuda ? "bf16-mixed" : "fp32";
  return Format(
      "{\"host\":\"double\",\"device_kind\":\"%s\",\"device_name\":\"Double\",\"device_uuid\":\"%s\","
      "\"libtorch_version\":\"2.11.0+double\",\"cpu_threads\":1,\"precision\":\"%s\",\"seed\":\"%llu\"%s,"
      "\"build_id\":\"double\",\"step\":\"%s\",\"attnfleet_version\":\"" ATTNFLEET_VERSION "\"}",
      cuda ? "DEVICE_KIND_CUDA" : "DEVICE_KIND_CPU", cuda ? arguments.gpu.c_str() : "", precision, arguments.seed,
      cuda ? ",\"driver_version\":\"580.0\",\"cuda_version\":\"13.0\",\"cudnn_version\":\"9.15\"" : "",
      arguments.step.c_str());
}

std::string Started(const Arguments& arguments) {
  const char* request_id = std::getenv("ATTNFLEET_REQUEST_ID");
  return "{\"started\":{\"environment\":" + EnvironmentOf(arguments) +
         ",\"parameter_count\":\"1000\",\"request_id\":\"" + (request_id != nullptr ? request_id : "") + "\"}}\n";
}

std::string Progress(const Arguments& arguments, double elapsed, double total) {
  const double share = total > 0 ? elapsed / total : 0;
  return Format(
      "{\"progress\":{\"phase\":\"TRAINER_PHASE_TIMED\",\"steps_done\":%d,\"steps_total\":%d,"
      "\"elapsed_seconds\":%.3f,\"remaining_seconds\":%.3f}}\n",
      static_cast<int>(share * arguments.steps), arguments.steps, elapsed, total - elapsed);
}

// What a GPU adds to a measurement: 300 W, a dense peak of 1e15 FLOP/s of which eager makes 20 %.
std::string MeasuredOnGpu(double tokens, double step_seconds, long long bytes) {
  return Format(
             ",\"peak_allocated_bytes\":\"%lld\",\"peak_reserved_bytes\":\"%lld\",\"peak_device_bytes\":\"%lld\","
             "\"model_bytes\":\"%lld\",\"gradient_bytes\":\"%lld\",\"optimizer_bytes\":\"%lld\","
             "\"activation_bytes\":\"%lld\"",
             bytes, bytes + bytes / 10, bytes + bytes / 5, bytes / 10, bytes / 10, bytes / 5,
             bytes - bytes / 10 * 2 - bytes / 5) +
         Format(
             ",\"model_flops_per_iteration\":%.9g,\"peak_flops_per_second\":1e15,\"energy_joules_per_iteration\":%.9g",
             tokens * 2e9, 300 * step_seconds);
}

std::string Telemetry(bool contaminated) {
  return Format(
      ",\"telemetry\":{\"samples\":10,\"sm_clock_mhz_median\":%d,\"sm_clock_mhz_min\":%d,"
      "\"memory_clock_mhz_median\":2619,\"temperature_celsius_max\":%d,\"power_watts_mean\":300,\"energy_joules\":30,"
      "\"ecc_enabled\":true%s}",
      contaminated ? 1200 : 1980, contaminated ? 900 : 1980, contaminated ? 91 : 55,
      contaminated ? ",\"throttle_reasons\":[\"hardware thermal slowdown\"],\"other_processes\":[{\"pid\":\"4242\","
                     "\"name\":\"intruder\",\"used_bytes\":\"2000000000\",\"phases\":[\"during\",\"after\"]}]"
                   : "");
}

// 1,000 tokens take eager 10 ms and 1 GB, the others less; half as fast where contaminated.
std::string Measured(const Arguments& arguments, bool contaminated = false, double slower = 1) {
  LogTo("ATTNFLEET_DOUBLE_ENDS", "");
  const double speed = arguments.backend == "eager" ? 1.0 : arguments.backend == "sdpa" ? 2.0 : 3.0;
  const double tokens = static_cast<double>(arguments.batch) * arguments.sequence_length;
  const double step_seconds = tokens * 1e-5 / speed * slower * (contaminated ? 2 : 1);
  const double wall_seconds = step_seconds * arguments.steps;
  const long long bytes = static_cast<long long>(tokens * 1e6 / speed);
  std::string text = Format(
      "{\"result\":{\"outcome\":\"OUTCOME_MEASURED\",\"measurement\":{\"timed_steps\":%d,\"warmup_steps\":%d,"
      "\"wall_seconds\":%.9g,\"iterations_per_second\":%.9g,\"step_seconds_median\":%.9g,\"step_seconds_p90\":%.9g,"
      "\"step_seconds_p99\":%.9g,\"peak_resident_bytes\":\"%lld\",\"first_loss\":2.3,\"last_loss\":2.1,"
      "\"warmup_stable\":true,\"data_wait_seconds\":%.9g,\"tokens_per_iteration\":\"%.0f\","
      "\"attention_dropout_placement\":\"DROPOUT_PLACEMENT_%s\"",
      arguments.steps, arguments.warmup, wall_seconds, 1 / step_seconds, step_seconds, step_seconds, step_seconds,
      bytes, wall_seconds / 1000, tokens, arguments.dropout_placement == "output" ? "OUTPUT" : "PROBABILITIES");
  const bool cuda = arguments.device == "cuda";
  const char* backend = arguments.backend.c_str();
  text += cuda ? MeasuredOnGpu(tokens, step_seconds, bytes) +
                     Format(",\"attention_kernels\":[\"double_%s_backward\",\"double_%s_forward\"]", backend, backend)
               : ",\"attention_kernels_unknown\":\"kernels are named on a GPU alone\"";
  if (arguments.check) {
    text += Format(
        ",\"numerical_check\":{\"samples\":%d,\"output_error\":1e-7,\"loss_error\":1e-8,\"gradient_error\":2e-7,"
        "\"gradient_worst\":\"encoder.layer.0.attention.self.query.weight\"}",
        std::min(arguments.batch, 2));
  }
  text += ",\"step_seconds\":[";
  const std::string step = Format("%.9g", step_seconds);
  for (int i = 0; i < arguments.steps; ++i) {
    if (i > 0) text += ',';
    text += step;
  }
  text += "]}";
  if (cuda) text += Telemetry(contaminated);
  if (contaminated) {
    text += ",\"contamination\":[\"hardware thermal slowdown\",\"other processes on the GPU: intruder 4242\"]";
  }
  return text + ",\"environment\":" + EnvironmentOf(arguments) + "}}\n";
}

std::string Unmeasured(const Arguments& arguments, const char* outcome, const char* reason, const char* more) {
  return Format("{\"result\":{\"outcome\":\"%s\",\"reason\":\"%s\"%s", outcome, reason, more) +
         ",\"environment\":" + EnvironmentOf(arguments) + "}}\n";
}

[[noreturn]] void Hang() {
  for (;;) pause();
}

void RunSlowly(const Arguments& arguments, double seconds) {
  constexpr double kInterval = 0.2;
  for (double elapsed = 0; elapsed < seconds; elapsed += kInterval) {
    Write(STDOUT_FILENO, Progress(arguments, elapsed, seconds));
    usleep(static_cast<useconds_t>(1e6 * std::min(kInterval, seconds - elapsed)));
  }
}

[[noreturn]] void Die(int signal) {
  Write(STDERR_FILENO, Format("double: about to die of signal %d\n", signal));
  std::signal(signal, SIG_DFL);
  raise(signal);
  Hang();
}

// Into the process group of a child, which keeps it until it is waited for. The parent's may lie outside of what this
// process can see, in a container.
void LeaveProcessGroup() {
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    _exit(0);
  }
  siginfo_t ended;
  waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT);
  setpgid(0, child);
  waitpid(child, nullptr, 0);
}

int Run(const Arguments& arguments, const Behaviour& behaviour) {
  const std::string& name = behaviour.name;
  if (name == "measured") {
    Write(STDOUT_FILENO, Started(arguments) + Measured(arguments));
    return 0;
  }
  if (name == "unkillable") LeaveProcessGroup();  // before anybody hears of this process
  Write(STDOUT_FILENO, Started(arguments));
  if (name == "contaminated") {
    const bool all = behaviour.value.empty();
    Write(STDOUT_FILENO, Measured(arguments, all || std::to_string(arguments.seed) == behaviour.value));
  } else if (name == "slower") {
    Write(STDOUT_FILENO, Measured(arguments, false, std::atof(behaviour.value.c_str())));
  } else if (name == "slow") {
    RunSlowly(arguments, std::atof(behaviour.value.c_str()));
    Write(STDOUT_FILENO, Measured(arguments));
  } else if (name == "oom") {
    Write(STDOUT_FILENO, Unmeasured(arguments, "OUTCOME_OUT_OF_MEMORY", "out of memory in backward",
                                    ",\"out_of_memory\":{\"requested_bytes\":\"34359738368\",\"free_bytes\":"
                                    "\"1073741824\",\"total_bytes\":\"85899345920\",\"phase\":\"backward\"}"));
  } else if (name == "unsupported") {
    Write(STDOUT_FILENO, Unmeasured(arguments, "OUTCOME_UNSUPPORTED", "the double does not support this here", ""));
  } else if (name == "failed") {
    Write(STDOUT_FILENO, Unmeasured(arguments, "OUTCOME_FAILED", "the double was told to fail", ""));
    return 1;
  } else if (name == "crash") {
    Die(std::atoi(behaviour.value.c_str()));
  } else if (name == "crash-first") {
    const int marker = open(behaviour.value.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (marker >= 0) Die(SIGSEGV);
    Write(STDOUT_FILENO, Measured(arguments));
  } else if (name == "exit") {
    Write(STDERR_FILENO, Format("double: exiting with status %s\n", behaviour.value.c_str()));
    return std::atoi(behaviour.value.c_str());
  } else if (name == "hang" || name == "stubborn") {
    if (name == "stubborn") std::signal(SIGTERM, SIG_IGN);
    Write(STDOUT_FILENO, Progress(arguments, 0, 0));
    Hang();
  } else if (name == "unkillable") {
    Write(STDOUT_FILENO, behaviour.value.empty() ? Progress(arguments, 0, 0) : behaviour.value + "\n");
    Hang();
  } else if (name == "linger") {
    Write(STDOUT_FILENO, Measured(arguments));
    Hang();
  } else if (name == "garbage") {
    Write(STDOUT_FILENO, "Segmentation fault? no: garbage\x01\n");
    Hang();
  } else if (name == "half") {
    Write(STDOUT_FILENO, "{\"result\":{\"outcome\":\"OUTCOME_MEA");
  } else if (name == "huge") {
    for (;;) Write(STDOUT_FILENO, std::string(1 << 20, ' '));
  } else if (name == "chatty") {
    Write(STDERR_FILENO, std::string(static_cast<size_t>(std::atol(behaviour.value.c_str())), '.') + "\nlast words\n");
    return 1;
  } else if (name == "binary") {
    Write(STDERR_FILENO, "caf\xe9 \xff\xfe\n");
    return 1;
  } else if (name == "orphan") {
    if (fork() == 0) Hang();
    Write(STDOUT_FILENO, Measured(arguments));
  } else {
    Write(STDERR_FILENO, Format("ATTNFLEET_DOUBLE: unknown behaviour \"%s\"\n", name.c_str()));
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  if (arguments.parent_pid != 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != arguments.parent_pid) return 1;
  }
  const Behaviour behaviour = Choose(arguments);
  if (arguments.list && behaviour.name == "measured") {
    ListBackends();
    return 0;
  }
  if (!arguments.list) LogStart(argc, argv);
  return Run(arguments, behaviour);
}
