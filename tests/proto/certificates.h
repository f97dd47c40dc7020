#ifndef ATTNFLEET_TESTS_PROTO_CERTIFICATES_H_
#define ATTNFLEET_TESTS_PROTO_CERTIFICATES_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/credentials.h"

namespace attnfleet {

// A folder of its own with a CA, as deploy/certificates.sh makes it; gone with the object.
class Certificates {
 public:
  Certificates() {
    std::string path = std::filesystem::temp_directory_path() / "attnfleet-certificates-XXXXXX";
    if (mkdtemp(path.data()) != nullptr) path_ = path;
    Run("ca", "");
  }
  ~Certificates() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  std::string operator/(const std::string& name) const { return absl::StrCat(path_, "/", name); }

  TlsFiles Client(const std::string& name, int days = 1) const {
    Run("client", name, days);
    return Files(name);
  }
  TlsFiles Server(const std::string& name = "server", const std::string& hosts = "127.0.0.1 localhost") const {
    Run("server", absl::StrCat(name, " ", hosts));
    return Files(name);
  }
  TlsFiles Files(const std::string& name) const {
    return {*this / "ca.pem", *this / (name + ".pem"), *this / (name + ".key")};
  }

  // Writes a file in the folder, in one step, and returns its path.
  std::string Write(const std::string& name, const std::string& text) const {
    const std::string path = *this / name;
    std::ofstream(path + ".new") << text;
    std::filesystem::rename(path + ".new", path);
    return path;
  }

 private:
  void Run(const std::string& kind, const std::string& arguments, int days = 1) const {
    const std::string command =
        absl::StrCat("DAYS=", days, " bash " ATTNFLEET_CERTIFICATES_SH " ", path_, " ", kind, " ", arguments);
    EXPECT_EQ(std::system(command.c_str()), 0) << command;  // NOLINT: a test's own words
  }

  std::string path_;
};

}  // namespace attnfleet

#endif  // ATTNFLEET_TESTS_PROTO_CERTIFICATES_H_
