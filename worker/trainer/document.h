#ifndef ATTNFLEET_WORKER_TRAINER_DOCUMENT_H_
#define ATTNFLEET_WORKER_TRAINER_DOCUMENT_H_

#include <cstdint>

#include "worker/trainer/synthetic.h"

namespace attnfleet::trainer {

// Fills batch number `index` with what a processor makes of pages: <s>, words in reading order, line by line and column
// by column, </s>, padding on the right up to the batch's length. A word is one to four tokens that share its box; the
// first has a label. A quarter of the sequences is full, the others have a quarter of the length or more. Too short for
// that (fewer than 8 tokens), sequences are full and hold words alone. Depends on the spec and the index alone.
void FillDocumentBatch(const SyntheticSpec& spec, uint64_t index, const BatchBuffers& buffers);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_DOCUMENT_H_
