#include "server/standby.h"

#include "absl/strings/str_cat.h"
#include "proto/server_list.h"

namespace attnfleet::server {
namespace {

class Refusal : public grpc::ServerGenericBidiReactor {
 public:
  explicit Refusal(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerGenericBidiReactor* StandbyService::CreateReactor(grpc::GenericCallbackServerContext* context) {
  const std::string leader = leader_();
  if (!leader.empty()) context->AddTrailingMetadata(kLeaderMetadata, leader);
  return new Refusal(grpc::Status(grpc::StatusCode::UNAVAILABLE,
                                  leader.empty() ? "this server is on standby, and none leads at present; try again"
                                                 : absl::StrCat("this server is on standby; ", leader, " leads")));
}

}  // namespace attnfleet::server
