#include "server/acceptor.h"

#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/support/log.h"

namespace attnfleet::server {
namespace {

// How often closed connections are looked for. Seldomer the more are open, so that it takes a fiftieth of the time.
constexpr std::chrono::milliseconds kSweep{200};
constexpr std::chrono::milliseconds kLongestSweep{1'000};
constexpr int kSweepPart = 50;
// A pause when the kernel has no descriptor or memory for another connection.
constexpr std::chrono::milliseconds kStarved{100};
constexpr std::chrono::seconds kLogInterval{10};
constexpr size_t kIpv6NetworkBytes = 8;

// What connections are counted by: an IPv4 address, or the /64 of an IPv6 one, in bytes.
std::string PeerKey(const sockaddr_storage& name) {
  if (name.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(name);
    return {reinterpret_cast<const char*>(&v4.sin_addr), sizeof v4.sin_addr};
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(name).sin6_addr;
  const auto* bytes = reinterpret_cast<const char*>(&v6);
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return {bytes + sizeof v6 - sizeof(in_addr), sizeof(in_addr)};
  return {bytes, kIpv6NetworkBytes};
}

ino_t InodeOf(int descriptor) {
  struct stat status {};
  return fstat(descriptor, &status) == 0 ? status.st_ino : 0;
}

uint64_t BytesReceived(int descriptor) {
  tcp_info info{};
  socklen_t size = sizeof info;
  return getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_bytes_received : 0;
}

int PortOf(int listener) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size);
  return ntohs(name.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(name).sin_port
                                         : reinterpret_cast<sockaddr_in6&>(name).sin6_port);
}

absl::Status Problem(const char* what) { return absl::UnavailableError(absl::StrCat(what, ": ", strerror(errno))); }

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Bind(const std::string& address, ConnectionLimits limits) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor(limits));
  const size_t colon = address.rfind(':');
  const std::string bracketed = address.substr(0, colon);
  const std::string host = bracketed.front() == '[' ? bracketed.substr(1, bracketed.size() - 2) : bracketed;
  acceptor->stop_ = eventfd(0, EFD_CLOEXEC);
  if (acceptor->stop_ < 0) return Problem("eventfd");
  if (const absl::Status status = acceptor->BindAll(host, address.substr(colon + 1)); !status.ok()) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", std::string(status.message())));
  }
  acceptor->address_ = absl::StrCat(bracketed, ":", PortOf(acceptor->listeners_.front()));
  return acceptor;
}

absl::Status Acceptor::BindAll(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  absl::Status last = absl::UnavailableError("the name has no address");
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    sockaddr_storage name{};
    std::memcpy(&name, one->ai_addr, one->ai_addrlen);
    if (!listeners_.empty()) {  // "localhost" is 127.0.0.1 and ::1: one port for both
      const in_port_t same = htons(static_cast<uint16_t>(PortOf(listeners_.front())));
      (name.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(name).sin_port
                                 : reinterpret_cast<sockaddr_in6&>(name).sin6_port) = same;
    }
    last = BindOne(reinterpret_cast<const sockaddr*>(&name), one->ai_addrlen);
    // A host without IPv6 still resolves its name to an IPv6 address.
    if (!last.ok() && errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL) return last;
  }
  return listeners_.empty() ? last : absl::OkStatus();
}

absl::Status Acceptor::BindOne(const sockaddr* name, socklen_t size) {
  const int listener = socket(name->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return Problem("socket");
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Accepted sockets inherit it.
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(listener, name, size) == 0 && listen(listener, SOMAXCONN) == 0) {
    listeners_.push_back(listener);
    return absl::OkStatus();
  }
  const int error = errno;
  close(listener);
  errno = error;
  return Problem("bind");
}

void Acceptor::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> target) {
  target_ = std::move(target);
  thread_ = std::thread([this] { Loop(); });
}

Acceptor::~Acceptor() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  for (const int listener : listeners_) close(listener);
  if (stop_ >= 0) close(stop_);
}

void Acceptor::Loop() {
  std::vector<pollfd> waits;
  for (const int listener : listeners_) waits.push_back({listener, POLLIN, 0});
  waits.push_back({stop_, POLLIN, 0});
  auto next_sweep = std::chrono::steady_clock::now();
  auto window = next_sweep;
  auto logged = next_sweep - kLogInterval;
  auto logged_cut = logged;
  for (;;) {
    poll(waits.data(), waits.size(), static_cast<int>(kSweep.count()));
    if (waits.back().revents != 0) return;
    const auto now = std::chrono::steady_clock::now();
    if (now >= next_sweep) {
      ForgetClosed();
      CutHeaviest();
      if (now - window >= limits_.window) {
        BeginWindow();
        window = now;
      }
      const auto end = std::chrono::steady_clock::now();
      next_sweep =
          end + std::clamp<std::chrono::steady_clock::duration>(kSweepPart * (end - now), kSweep, kLongestSweep);
    }
    for (const int listener : listeners_) AcceptAll(listener);
    if (refused_ > 0 && now - logged >= kLogInterval) {
      LogWarning(absl::StrCat(refused_, " connections closed at once: at most ", limits_.total, " in all and ",
                              limits_.per_address, " from one address are possible"));
      refused_ = 0;
      logged = now;
    }
    if (cut_ > 0 && now - logged_cut >= kLogInterval) {
      LogWarning(absl::StrCat(cut_, " connections closed: those of their address had sent more than ",
                              limits_.bytes_per_address >> 20, " MiB together within ", limits_.window.count() / 1000,
                              " s"));
      cut_ = 0;
      logged_cut = now;
    }
  }
}

void Acceptor::AcceptAll(int listener) {
  constexpr int kAtOnce = 256;  // then closed connections and the stop are looked for again
  for (int i = 0; i < kAtOnce; ++i) {
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    const int descriptor = accept4(listener, reinterpret_cast<sockaddr*>(&name), &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor >= 0) {
      Take(descriptor, PeerKey(name));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      std::this_thread::sleep_for(kStarved);
      return;
    }
    if (errno == EAGAIN) return;
    // Else that one connection has failed.
  }
}

void Acceptor::Take(int descriptor, const std::string& peer) {
  size_t& open = open_by_peer_[peer];
  if (open_.size() >= limits_.total || open >= limits_.per_address) {
    if (open == 0) open_by_peer_.erase(peer);
    ++refused_;
    close(descriptor);
    return;
  }
  ++open;
  open_.push_back({descriptor, InodeOf(descriptor), peer});
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = descriptor;
  target_->HandleNewConnection(&parameters);
}

void Acceptor::ForgetClosed() {
  for (size_t i = 0; i < open_.size();) {
    if (InodeOf(open_[i].descriptor) == open_[i].inode) {
      ++i;
      continue;
    }
    const auto count = open_by_peer_.find(open_[i].peer);
    if (--count->second == 0) open_by_peer_.erase(count);
    open_[i] = std::move(open_.back());
    open_.pop_back();
  }
}

void Acceptor::CutHeaviest() {
  std::map<std::string, std::multimap<uint64_t, const Connection*>> received;  // by peer
  for (const Connection& connection : open_) {
    const uint64_t bytes = BytesReceived(connection.descriptor);
    // Fewer than before: gRPC has closed it in this moment.
    received[connection.peer].emplace(bytes - std::min(bytes, connection.before), &connection);
  }
  for (auto& [peer, connections] : received) {
    uint64_t sum = 0;
    for (const auto& [bytes, connection] : connections) sum += bytes;
    for (; sum > limits_.bytes_per_address; connections.erase(std::prev(connections.end()))) {
      const auto& [bytes, heaviest] = *connections.rbegin();
      sum -= bytes;
      ++cut_;
      // gRPC may close it in this moment and the number be another connection's, whose peer then has to connect anew.
      if (InodeOf(heaviest->descriptor) == heaviest->inode) shutdown(heaviest->descriptor, SHUT_RDWR);
    }
  }
}

void Acceptor::BeginWindow() {
  for (Connection& connection : open_) connection.before = BytesReceived(connection.descriptor);
}

}  // namespace attnfleet::server
