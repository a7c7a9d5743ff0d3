// Products of a rounded cache's codes, in integers: what codes.h needs of an instruction set. All sets come to the same bits.
//
// CodeProducts<kBits> of each set:
//   kRun             keys whose scores are computed at once
//   pack_query()     a query as score_keys() reads it: round(q * inverse)
//   score_keys()     scores of kRows rows and kRun keys, not yet times the queries' scales
//   round_weights()  a group's weights round(p * scale * factor) as add_values() reads them; returns their sum
//   add_values()     kRows rows of sums over values, kLanes dimensions of them
#pragma once

#include "cache_block.h"

namespace parlor {
namespace PARLOR_ISA_NS {

constexpr int64_t kMaxCodeRows = 8;        // that go over the codes together
constexpr int64_t kCodeStride = 512 + 16;  // most keys of a block (operations.cpp), and a line against aliases
constexpr int64_t kWeightStride = kCodeStride / 2;  // words of a row's weights
constexpr int64_t kQueryStride = 1024 / 2 + 16;     // words of a query: operations.cpp refuses larger heads
constexpr int64_t kMaxBlockPages = 16;
// Two planes of int8 hold 16 bits up to 127 * 256 + 127. Weights stay below, whatever a product's rounding adds.
template <int kBits>
constexpr float kQueryTop = kBits == 8 ? 32639.0f : 127.0f;
constexpr float kWeightTop = 32632.0f;

// Keys of a page, from the first of a run on.
struct CodeKeys {
    const int32_t* words;
    int64_t page_size, count, head_dim;  // count: in the page
    const float* scales;                 // [groups, kCodeStride]

    int64_t groups() const { return (head_dim + kCacheGroup - 1) / kCacheGroup; }
    int64_t dims(int64_t group) const {  // of a group
        const int64_t left = head_dim - group * kCacheGroup;
        return left < kCacheGroup ? left : kCacheGroup;
    }
};

// Values of a block: num_keys of them in whole pages but the last.
struct CodeValues {
    const int32_t* pages[kMaxBlockPages];
    int64_t num_pages, page_size, num_keys, head_dim;

    // Keys of page i, in eights: of those behind the end the weights are zero.
    int64_t keys(int64_t i) const {
        const int64_t left = num_keys - i * page_size;
        return ((left < page_size ? left : page_size) + 7) / 8 * 8;
    }
};

// What each of the rows gets of a block: sums = sums * old_factor + mixed * unit.
struct CodeMix {
    const int32_t* weights;      // [rows, kWeightStride] of the dimensions' group
    const int32_t* weight_sums;  // [rows]
    const float *units, *old_factors;
    float* sums;                 // [rows], `stride` apart
    int64_t stride;
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

#if defined(__AVX512F__)
#include "code_products_avx512.h"
#elif defined(__AVX2__)
#include "code_products_avx2.h"
#elif defined(PARLOR_DOTPROD)
#include "code_products_dotprod.h"
#else
#include "code_products_plain.h"
#endif
