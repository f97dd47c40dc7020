#include "server/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fleet_fixture.h"
#include "proto/support/metrics_endpoint.h"
#include "server/fleet_metrics.h"
#include "server/statistics.h"

namespace attnfleet::server {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Text(const std::vector<prometheus::MetricFamily>& families) {
  return prometheus::TextSerializer().Serialize(families);
}

std::string Text(const Metrics& metrics) {
  std::string text;
  for (const auto& collectable : metrics.collectables()) text += Text(collectable->Collect());
  return text + Text(metrics.results()->Collect());
}

// One job of one run, as it ends.
v1::Benchmark Measured(const std::string& backend, int batch, double speed) {
  v1::Benchmark benchmark;
  benchmark.set_id(1);
  *benchmark.mutable_spec() = MakeSpec({backend}, 1, 1);
  benchmark.mutable_spec()->mutable_shapes(0)->set_batch(batch);
  for (v1::Job& job : ExpandJobs(1, benchmark.spec())) *benchmark.add_jobs() = std::move(job);
  v1::Run& run = *benchmark.mutable_jobs(0)->mutable_runs(0);
  run.set_state(v1::RUN_STATE_ENDED);
  run.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
  run.mutable_result()->mutable_measurement()->set_iterations_per_second(speed);
  run.mutable_result()->mutable_measurement()->set_peak_resident_bytes(1000);
  run.mutable_result()->mutable_environment()->set_device_name("H100");
  run.mutable_result()->mutable_environment()->set_precision("bf16-mixed");
  return benchmark;
}

TEST(ResultMetrics, TheNewestResultOfACellWithoutWhatIsUnknown) {
  Metrics metrics;
  uint64_t order = 0;
  for (const double speed : {10.0, 20.0}) {
    v1::Benchmark benchmark = Measured("sdpa", 32, speed);
    Summarize(benchmark, false);
    metrics.Finished(benchmark, ++order);
  }
  const std::string text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("attnfleet_benchmark_iterations_per_second{backend=\"sdpa\",shape=\"32x64\","
                              "device=\"H100\",model=\"base\",precision=\"bf16-mixed\",step=\"reference\"} 20\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_benchmark_peak_resident_bytes{"));
  EXPECT_THAT(text, Not(HasSubstr("attnfleet_benchmark_peak_allocated_bytes"))) << "the CPU has no such figure";
  EXPECT_THAT(text, Not(HasSubstr("attnfleet_benchmark_eager_speed_ratio"))) << "there is no eager";
}

TEST(ResultMetrics, ABenchmarkThatEndedEarlierAndComesLaterIsNotTheNewest) {
  Metrics metrics;
  for (const auto& [speed, order] : {std::pair{20.0, uint64_t{2}}, std::pair{10.0, uint64_t{1}}}) {
    v1::Benchmark benchmark = Measured("sdpa", 32, speed);
    Summarize(benchmark, false);
    metrics.Finished(benchmark, order);
  }
  EXPECT_THAT(Text(metrics), HasSubstr("step=\"reference\"} 20\n"));
  EXPECT_EQ(metrics.newest_finished(), 2u);
}

TEST(ResultMetrics, AWallClockThatJumpedAheadAndBackHidesNothing) {
  Metrics metrics;
  for (const auto& [speed, order, ended] :
       {std::tuple{10.0, uint64_t{1}, int64_t{86'400'000}}, std::tuple{20.0, uint64_t{2}, int64_t{1'000}}}) {
    v1::Benchmark benchmark = Measured("sdpa", 32, speed);
    benchmark.set_ended_unix_ms(ended);
    Summarize(benchmark, false);
    metrics.Finished(benchmark, order);
  }
  EXPECT_THAT(Text(metrics), HasSubstr("step=\"reference\"} 20\n"));
}

TEST(ResultMetrics, AreBoundedAndTheOldestGoes) {
  ResultMetrics results;
  const int most = static_cast<int>(ResultMetrics::kMaxSeries);
  uint64_t order = 0;
  const auto set = [&results, &order](int batch) {
    v1::Benchmark benchmark = Measured("eager", batch, batch);
    Summarize(benchmark, false);
    results.Set(benchmark, ++order);
  };
  for (int batch = 1; batch <= most; ++batch) set(batch);
  set(1);  // now the newest
  set(most + 1);
  const std::vector<prometheus::MetricFamily> families = results.Collect();
  EXPECT_EQ(families[0].metric.size(), ResultMetrics::kMaxSeries);
  const std::string text = Text(families);
  EXPECT_THAT(text, HasSubstr("shape=\"1x64\""));
  EXPECT_THAT(text, Not(HasSubstr("shape=\"2x64\"")));
}

TEST(ResultMetrics, NodesThatWereComparedAndWhichAreSlow) {
  v1::Benchmark benchmark;
  const auto add = [&benchmark](const char* worker, uint32_t cells, double speed, bool slow) {
    v1::NodeSummary& node = *benchmark.mutable_fleet()->add_nodes();
    node.mutable_node()->set_worker(worker);
    node.mutable_node()->set_slot("GPU-0");
    node.set_cells(cells);
    node.set_relative_speed(speed);
    node.set_slow(slow);
  };
  add("w1", 2, 1.01, false);
  add("w2", 2, 0.9, true);
  add("w3", 0, 0, false);
  ResultMetrics results;
  results.Set(benchmark, 1);
  std::string text = Text(results.Collect());
  EXPECT_THAT(text, HasSubstr("attnfleet_node_slow{worker=\"w1\",slot=\"GPU-0\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_node_slow{worker=\"w2\",slot=\"GPU-0\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_node_speed_ratio{worker=\"w2\",slot=\"GPU-0\"} 0.9"));
  EXPECT_THAT(text, Not(HasSubstr("w3")));
  benchmark.mutable_fleet()->mutable_nodes(1)->set_slow(false);
  results.Set(benchmark, 2);
  text = Text(results.Collect());
  EXPECT_THAT(text, HasSubstr("attnfleet_node_slow{worker=\"w2\",slot=\"GPU-0\"} 0\n")) << "mended";
}

TEST(MetricsEndpoint, SilentConnectionsHoldUpAScrapeOnlyForAWhile) {
  std::string address;
  std::unique_ptr<prometheus::Exposer> exposer;
  Metrics metrics;
  for (int port = 20'000 + getpid() % 20'000; exposer == nullptr; ++port) {
    address = absl::StrCat("127.0.0.1:", port);
    if (auto serving = ServeMetrics(address, metrics.collectables()); serving.ok()) exposer = *std::move(serving);
  }
  const auto connect_to = [&address] {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.find(':') + 1))));
    const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(descriptor, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    return descriptor;
  };
  std::vector<int> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(connect_to());  // more than it has threads
  const int scrape = connect_to();
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  ASSERT_EQ(send(scrape, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  std::string answer(15, '\0');
  EXPECT_EQ(recv(scrape, answer.data(), answer.size(), MSG_WAITALL), static_cast<ssize_t>(answer.size()));
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  close(scrape);
  for (const int descriptor : silent) close(descriptor);
}

TEST(Metrics, RunsAndTheStore) {
  Metrics metrics;
  BatchReport report;
  report.events = 3;
  report.save_seconds = 0.02;
  report.ended[v1::OUTCOME_OUT_OF_MEMORY] = 4;
  report.queue_seconds = {2, 90};
  metrics.Observe(report);
  report = {};
  report.save_failed = true;
  metrics.Observe(report);
  const std::string text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("attnfleet_runs_ended_total{outcome=\"out_of_memory\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_run_queue_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_run_queue_seconds_bucket{le=\"5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_store_save_seconds_count 1\n"))
      << "a commit that was not made has no duration";
  EXPECT_THAT(text, HasSubstr("attnfleet_store_save_failures_total 1\n"));
}

TEST(Metrics, CallsThatAreRefused) {
  Metrics metrics;
  metrics.rpcs().Refused(grpc::StatusCode::UNAUTHENTICATED);
  const std::string text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("attnfleet_calls_refused_total{code=\"UNAUTHENTICATED\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_calls_refused_total{code=\"PERMISSION_DENIED\"} 0\n"));
}

TEST(CountFleet, EveryStateIsThereAndEverySlotCountedOnce) {
  std::vector<v1::WorkerStatus> workers;
  const auto add = [&workers](int slots, int active, bool connected, bool draining) {
    v1::WorkerStatus& worker = workers.emplace_back();
    *worker.mutable_info() = MakeHello("w", slots).worker();
    for (int i = 0; i < active; ++i) worker.add_active();
    worker.set_connected(connected);
    worker.set_draining(draining);
  };
  add(4, 1, true, false);
  add(2, 2, true, false);
  add(3, 1, true, true);
  add(8, 1, false, false);
  add(5, 0, false, true);
  add(6, 1, true, false);
  workers.back().set_drained(true);
  const std::string text = Text(CountFleet(workers));
  for (const char* line : {"attnfleet_workers{state=\"connected\"} 2\n", "attnfleet_workers{state=\"draining\"} 2\n",
                           "attnfleet_workers{state=\"lost\"} 1\n", "attnfleet_slots{state=\"busy\"} 5\n",
                           "attnfleet_slots{state=\"idle\"} 3\n", "attnfleet_slots{state=\"draining\"} 7\n",
                           "attnfleet_slots{state=\"lost\"} 8\n", "attnfleet_workers{state=\"stopped\"} 1\n",
                           "attnfleet_slots{state=\"stopped\"} 5\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(Text(CountFleet({})), HasSubstr("attnfleet_workers{state=\"connected\"} 0\n"));
}

TEST(CountRuns, OfBenchmarksThatAreNotOver) {
  Scheduler scheduler(1'000);
  Effects effects;
  scheduler.WorkerJoined(MakeHello("w", 1), 1, effects);
  scheduler.Submit(MakeSpec({"eager"}, 1, 4), 2, effects);
  const uint64_t cancelled = scheduler.Submit(MakeSpec({"eager"}, 1, 9), 3, effects);
  scheduler.Cancel(cancelled, "test", 4, effects);
  const std::string text = Text({CountRuns(scheduler)});
  EXPECT_THAT(text, HasSubstr("attnfleet_runs{state=\"queued\",priority=\"normal\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_runs{state=\"active\",priority=\"normal\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_runs{state=\"queued\",priority=\"high\"} 0\n"));
}

}  // namespace
}  // namespace attnfleet::server
