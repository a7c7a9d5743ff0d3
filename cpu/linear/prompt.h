// The linear layer for rows of prompts, which differ from those that decode: there are many of them, so that arithmetic
// bounds it, and a row need not come to the bits that decoding would give it. linear.cpp shares the work out among the threads.
//
// A row's result depends on nothing but that row and the weight: neither on the other rows nor on how many there are, so
// that prompts in chunks, in batches and behind a reused beginning come to the same bits as whole ones alone.
#pragma once

#include "linear.h"

namespace parlor {

constexpr int64_t kPromptChunk = 512;  // rows at a time: unpacking a weight is to cost little beside its use
constexpr int64_t kPromptPair = 32;    // rows that are staged together: two tiles

// What becomes of the sums, PARLOR_EPILOGUE_*, and where row 0 goes.
struct PromptOutput {
    float* out;
    int64_t stride, rows;
    int epilogue;
    void* staged = nullptr;               // instead of out: as `next` reads its rows, see stages_prompts()
    const linear_weight* next = nullptr;
};

}  // namespace parlor

#if PARLOR_BUILT_AMX
// Whether prompt_stage() and prompt_multiply() take it; rows of other weights are computed as all others are.
PARLOR_DECLARE_IN(amx, bool, takes_prompts, const linear_weight& w, int epilogue)
// Whether what gate and up give, PARLOR_EPILOGUE_SILU_MUL, can be staged for down at once.
PARLOR_DECLARE_IN(amx, bool, stages_prompts, const linear_weight& gate_up, const linear_weight& down)
// Whether precise outputs are products of split factors; those of other weights are computed as all other rows are.
PARLOR_DECLARE_IN(amx, bool, splits_prompts, const linear_weight& w)
// Bytes of `rows` staged rows, bytes of a thread's own memory, and row blocks of out that are worked off together.
PARLOR_DECLARE_IN(amx, int64_t, prompt_staged_bytes, const linear_weight& w, int64_t rows, bool is_split)
PARLOR_DECLARE_IN(amx, int64_t, prompt_own_bytes, const linear_weight& w, int64_t rows)
PARLOR_DECLARE_IN(amx, int64_t, prompt_row_blocks, int epilogue)
// Rows 32 * pair and following of x to their place among the staged ones. is_split: as sums of two bf16.
PARLOR_DECLARE_IN(amx, void, prompt_stage, const linear_weight& w, const Input& x, int64_t pair, bool is_split, void* staged)
// Row blocks [first, last) of out.
PARLOR_DECLARE_IN(amx, void, prompt_multiply, const linear_weight& w, const void* staged, bool is_split, int64_t first,
                  int64_t last, const PromptOutput& output, void* own)
#endif
