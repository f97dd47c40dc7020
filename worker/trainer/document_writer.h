#ifndef ATTNFLEET_WORKER_TRAINER_DOCUMENT_WRITER_H_
#define ATTNFLEET_WORKER_TRAINER_DOCUMENT_WRITER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/trainer/synthetic.h"

namespace attnfleet::trainer {

// Writes the sequences of the first `batches` synthetic batches, without their padding, as JSON Lines that DocumentFile
// reads: what a run with this spec trains on, for other programs to train on. The file is whole or not there.
absl::Status WriteDocuments(const SyntheticSpec& spec, int64_t batches, const std::string& path);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_DOCUMENT_WRITER_H_
