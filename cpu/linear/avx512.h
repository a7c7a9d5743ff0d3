// What the kernels with registers of 512 bits share, those for AMX's tiles among them: 16 outputs of a row block in one.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers: registers left undefined on purpose
#endif
#include <immintrin.h>

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {

inline __m512 load_halves(const uint16_t* source) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}

// Zero points of 16 outputs, from `index` on, where each group has its own.
inline __m512 load_zeros(const linear_weight& w, int64_t index) {
    if (w.zero_kind == PARLOR_ZERO_F16) return load_halves(static_cast<const uint16_t*>(w.zeros) + index);
    const uint8_t* const bytes = static_cast<const uint8_t*>(w.zeros) + index;
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// Four bytes, whatever they are, in every lane.
inline __m512i broadcast_word(const void* source) {
    int32_t word;
    __builtin_memcpy(&word, source, sizeof word);
    return _mm512_set1_epi32(word);
}

inline void store(const linear_weight& w, __m512 sum, int64_t row_block, const Output& output, int row) {
    float* const out = output.out + row * output.stride;
    const int64_t first = row_block * kLanes;
    const int64_t left = w.n - first;
    const __mmask16 mask = left >= kLanes ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
    if (w.bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, w.bias + first));
    if (output.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out + first), sum);
    _mm512_mask_storeu_ps(out + first, mask, sum);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
