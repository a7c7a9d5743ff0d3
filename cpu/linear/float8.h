// Floats of 8 bits (e4m3: a sign, four bits of exponent, three of mantissa) with AVX-512.
//
// Their bits, moved by 7, are those of a float16 that is so many times smaller: value / kE4M3Factor, subnormals included.
// NaN comes out as a number: who packs weights sees to it that there is none.
#pragma once

#include "isa.h"

namespace parlor {
namespace PARLOR_ISA_NS {

// 32 bytes, each in the upper half of a 16-bit word whose lower half is 0, as float16.
inline __m512i e4m3_as_halves(__m512i words) {
    return _mm512_and_si512(_mm512_srai_epi16(words, 1), _mm512_set1_epi16(static_cast<int16_t>(0xBFFF)));
}

inline __m512 e4m3_to_float(__m128i bytes) {
    const __m256i words = _mm256_srai_epi16(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8), 1);
    return _mm512_cvtph_ps(_mm256_and_si256(words, _mm256_set1_epi16(static_cast<int16_t>(0xBFFF))));
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
