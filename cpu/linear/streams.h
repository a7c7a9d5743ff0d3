// The row blocks of a few rows' product as streams: reading bounds it, so several, far apart in memory, are read side by side.
#pragma once

#include <cpuid.h>
#include <immintrin.h>

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {

constexpr int kPrefetchBytes = 2048;  // ahead in each stream

// How a kernel reads: stream s has row blocks first + s * length + i for all i < length.
template <int kCount, bool kPrefetched>
struct Streams {
    static constexpr int count = kCount;
    static constexpr bool prefetched = kPrefetched;  // by software
};

inline bool is_amd() {
    static const bool is = [] {
        unsigned a, b, c, d;
        return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
    }();
    return is;
}

// Call run(Streams, first, length) for all streams' share of [first, last), and for what is left as one stream.
template <class Most, class Run>
void divide(int64_t first, int64_t last, Run run) {
    const int64_t length = (last - first) / Most::count;
    if (length > 0) run(Most(), first, length);
    const int64_t rest = first + length * Most::count;
    if (rest < last) run(Streams<1, true>(), rest, last - rest);
}

// The same with as many streams as so many rows have registers for; of one row on an AMD core kPlain that are left to its own
// prefetchers, unless that is 0: they get more of most kinds (Zen 4: of Q4_K all that plain reading gets), but less where blocks' lengths
// are not known while compiling.
template <int kRows, int kPlain, class Run>
void divide_rows(int64_t first, int64_t last, Run run) {
    if constexpr (kRows == 1 && kPlain > 0) {
        if (is_amd()) return divide<Streams<kPlain, false>>(first, last, run);
    }
    divide<Streams<kRows <= 2 ? 4 : kRows <= 4 ? 2 : 1, true>>(first, last, run);
}

// always_inline: gcc takes a function that only prefetches for one without effect.
__attribute__((always_inline)) inline void prefetch(const void* source) {
    _mm_prefetch(static_cast<const char*>(source) + kPrefetchBytes, _MM_HINT_T1);
}

// Scales and minimums are lines of their own that come too seldom for an AMD core's prefetchers to see in time: `bytes` of them, a
// little ahead. (Four times as far ahead it is slower than not at all.)
__attribute__((always_inline)) inline void prefetch_factors(const void* source, int64_t bytes) {
    constexpr int64_t kAhead = 256;
    for (int64_t line = 0; line < bytes; line += 64) _mm_prefetch(static_cast<const char*>(source) + kAhead + line, _MM_HINT_T0);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
