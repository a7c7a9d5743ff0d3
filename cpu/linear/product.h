// linear() and prompt_linear() without their checks, and for some row blocks of out alone, as mixtures of experts want them:
// there a thread takes row blocks of one expert after the other.
#pragma once

#include "linear.h"

namespace parlor {

struct Product {
    const linear_weight* weight;
    Input input;         // rows within 1 .. 2^24
    float* out;          // row 0
    int64_t out_stride;
    int epilogue;        // PARLOR_EPILOGUE_*
    bool of_prompts;     // as prompt_linear() does it
    int64_t precise;     // of prompts: its argument

    int64_t row_blocks() const;  // of out
};

// Row blocks [first, last) of out. Within a body of the thread team the calling thread does all of it.
int multiply(const Product& product, int64_t first, int64_t last);

}  // namespace parlor
