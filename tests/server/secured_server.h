#ifndef ATTNFLEET_TESTS_SERVER_SECURED_SERVER_H_
#define ATTNFLEET_TESTS_SERVER_SECURED_SERVER_H_

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "certificates.h"
#include "proto/address.h"
#include "server/access_control.h"
#include "server/benchmark_service.h"
#include "server/coordinator.h"
#include "server/fleet_service.h"
#include "server/listener.h"
#include "server/sqlite_store.h"
#include "server/worker_service.h"

namespace attnfleet::server {

// The whole coordinator behind TLS, with certificates of its own.
class SecuredServer {
 public:
  explicit SecuredServer(const std::string& roles, CallLimits calls = {}) {
    SetRoles(roles);
    auto store = SqliteStore::Open(files / "store.db");
    auto access = AccessControl::Open(files / "roles");
    EXPECT_TRUE(store.ok() && access.ok()) << store.status() << access.status();
    store_ = *std::move(store);
    access_ = *std::move(access);
    Coordinator::Options options;
    options.now_unix_ms = [] {
      return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
    };
    auto coordinator = Coordinator::Start(*store_, options);
    EXPECT_TRUE(coordinator.ok()) << coordinator.status();
    coordinator_ = *std::move(coordinator);
    benchmarks_ = std::make_unique<BenchmarkService>(*coordinator_, access_.get());
    fleet_ = std::make_unique<FleetService>(*coordinator_);
    workers_ = std::make_unique<WorkerService>(*coordinator_, access_.get());
    auto listener = Listen(
        {.address = "127.0.0.1:0",
         .tls = files.Server(),
         .access = access_.get(),
         .calls = calls,
         .refused = [this](grpc::StatusCode code) { denied_ += code == grpc::StatusCode::PERMISSION_DENIED ? 1 : 0; }},
        {benchmarks_.get(), fleet_.get(), workers_.get()});
    EXPECT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }
  ~SecuredServer() { listener_.server->Shutdown(std::chrono::system_clock::now()); }
  SecuredServer(const SecuredServer&) = delete;
  SecuredServer& operator=(const SecuredServer&) = delete;

  void SetRoles(const std::string& text) { files.Write("roles", text); }

  const std::string& address() const { return listener_.address; }

  // A channel of a peer of that name, with a certificate that is made for it.
  std::shared_ptr<grpc::Channel> Channel(const std::string& name) const {
    return MakeChannel(address(), files.Client(name));
  }

  // Calls that were refused for their role.
  int denied() const { return denied_; }

  const Certificates files;

 private:
  std::atomic<int> denied_{0};
  std::unique_ptr<SqliteStore> store_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<BenchmarkService> benchmarks_;
  std::unique_ptr<FleetService> fleet_;
  std::unique_ptr<WorkerService> workers_;
  Listener listener_;
};

// Of every call in a test: only has to end.
inline std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + std::chrono::seconds(60);
}

}  // namespace attnfleet::server

#endif  // ATTNFLEET_TESTS_SERVER_SECURED_SERVER_H_
