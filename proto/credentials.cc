#include "proto/credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <array>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/support/state_dir.h"

namespace attnfleet {
namespace {

constexpr unsigned kReloadSeconds = 1;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using X509Pointer = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPointer = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Memory(absl::string_view text) { return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free}; }

X509Pointer FirstCertificate(absl::string_view pem) {
  return {PEM_read_bio_X509(Memory(pem).get(), nullptr, nullptr, nullptr), X509_free};
}

// Refuses to ask for a passphrase: nobody is there to answer.
int NoPassphrase(char*, int, int, void*) { return -1; }

KeyPointer PrivateKey(absl::string_view pem) {
  return {PEM_read_bio_PrivateKey(Memory(pem).get(), nullptr, NoPassphrase, nullptr), EVP_PKEY_free};
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm broken_down{};
  if (ASN1_TIME_to_tm(time, &broken_down) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&broken_down));
}

absl::StatusOr<std::string> CommonName(const X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int first = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (first < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, first) >= 0) {
    return absl::InvalidArgumentError("the certificate's subject has not exactly one common name (CN)");
  }
  unsigned char* utf8 = nullptr;
  const int size = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, first)));
  if (size < 0) return absl::InvalidArgumentError("the certificate's common name is no text");
  std::string name(reinterpret_cast<const char*>(utf8), static_cast<size_t>(size));
  OPENSSL_free(utf8);
  return name;
}

absl::StatusOr<std::string> ReadPem(const char* flag, const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", std::string(text.status().message())));
  return text;
}

std::shared_ptr<grpc::experimental::FileWatcherCertificateProvider> Watch(const TlsFiles& files) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(files.key, files.certificate, files.ca,
                                                                              kReloadSeconds);
}

}  // namespace

TlsFiles TlsFilesFor(const std::string& server, TlsFiles flags) {
  if (absl::StartsWith(server, "unix:")) return flags;
  for (const auto& [path, variable] :
       {std::pair{&flags.ca, "ATTNFLEET_CA"}, {&flags.certificate, "ATTNFLEET_CERT"}, {&flags.key, "ATTNFLEET_KEY"}}) {
    const char* value = std::getenv(variable);
    if (path->empty() && value != nullptr) *path = value;
  }
  return flags;
}

absl::StatusOr<Certificate> ParseCertificate(absl::string_view pem) {
  const X509Pointer x509 = FirstCertificate(pem);
  if (x509 == nullptr) return absl::InvalidArgumentError("there is no certificate (PEM) in it");
  absl::StatusOr<std::string> name = CommonName(x509.get());
  if (!name.ok()) return name.status();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (X509_digest(x509.get(), EVP_sha256(), digest.data(), &size) != 1) {
    return absl::InvalidArgumentError("the certificate has no fingerprint");
  }
  return Certificate{*std::move(name), ToTime(X509_get0_notBefore(x509.get())), ToTime(X509_get0_notAfter(x509.get())),
                     absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), size})};
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& path) {
  const absl::StatusOr<std::string> pem = ReadFile(path);
  if (!pem.ok()) return pem.status();
  absl::StatusOr<Certificate> certificate = ParseCertificate(*pem);
  if (certificate.ok()) return certificate;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::string(certificate.status().message())));
}

absl::Status CheckTlsFiles(const TlsFiles& files, absl::Time now) {
  if (files.empty()) return absl::OkStatus();
  for (const auto& [flag, path] :
       {std::pair{"--ca", &files.ca}, {"--cert", &files.certificate}, {"--key", &files.key}}) {
    if (path->empty()) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": missing; --ca, --cert and --key belong together"));
    }
  }
  const absl::StatusOr<std::string> ca = ReadPem("--ca", files.ca);
  if (!ca.ok()) return ca.status();
  if (FirstCertificate(*ca) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("--ca: ", files.ca, ": there is no certificate (PEM) in it"));
  }
  const absl::StatusOr<std::string> chain = ReadPem("--cert", files.certificate);
  if (!chain.ok()) return chain.status();
  const absl::StatusOr<Certificate> certificate = ParseCertificate(*chain);
  if (!certificate.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cert: ", files.certificate, ": ", std::string(certificate.status().message())));
  }
  const absl::StatusOr<std::string> key_text = ReadPem("--key", files.key);
  if (!key_text.ok()) return key_text.status();
  const KeyPointer key = PrivateKey(*key_text);
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--key: ", files.key, ": there is no private key (PEM, without a passphrase) in it"));
  }
  if (X509_check_private_key(FirstCertificate(*chain).get(), key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--key: ", files.key, " is not the key of the certificate ", files.certificate));
  }
  if (now < certificate->not_before) {
    return absl::InvalidArgumentError(absl::StrCat("--cert: ", files.certificate, " is not valid before ",
                                                   absl::FormatTime(certificate->not_before, absl::UTCTimeZone())));
  }
  if (now > certificate->not_after) {
    return absl::InvalidArgumentError(absl::StrCat("--cert: ", files.certificate, " has expired on ",
                                                   absl::FormatTime(certificate->not_after, absl::UTCTimeZone())));
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(Watch(files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(Watch(files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace attnfleet
