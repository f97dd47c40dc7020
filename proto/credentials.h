#ifndef ATTNFLEET_PROTO_CREDENTIALS_H_
#define ATTNFLEET_PROTO_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace attnfleet {

// Paths of PEM files for TLS with certificates on both sides. All three or none: none is plain text.
struct TlsFiles {
  std::string ca;           // who is trusted to have signed the other side's certificate
  std::string certificate;  // one's own, with the chain that leads to the CA if there is one
  std::string key;

  bool empty() const { return ca.empty() && certificate.empty() && key.empty(); }
};

// What flags say, and for empty ones ATTNFLEET_CA, ATTNFLEET_CERT and ATTNFLEET_KEY, unless the server is at a Unix
// socket: those are plain text if flags do not ask for more.
TlsFiles TlsFilesFor(const std::string& server, TlsFiles flags);

// What a certificate says of its owner.
struct Certificate {
  std::string name;  // the subject's common name
  absl::Time not_before;
  absl::Time not_after;
  std::string sha256;  // fingerprint, 64 lower-case hexadecimal digits
};

// Of the first certificate in the text. INVALID_ARGUMENT if there is none, or it has not exactly one common name.
absl::StatusOr<Certificate> ParseCertificate(absl::string_view pem);
absl::StatusOr<Certificate> ReadCertificate(const std::string& path);

// INVALID_ARGUMENT names the flag and the file: one of the three is missing or no PEM, the key is not that of the
// certificate, the certificate is not valid at `now`. OK for none at all.
absl::Status CheckTlsFiles(const TlsFiles& files, absl::Time now);

// Plain text for no files. The files are read again as they change, within about a second, for new connections. A
// channel accepts only a server whose certificate names the host that was dialled; a server accepts only peers with a
// certificate of the CA.
std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const TlsFiles& files);
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsFiles& files);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_CREDENTIALS_H_
