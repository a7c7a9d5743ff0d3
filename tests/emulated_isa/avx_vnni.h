// AVX-VNNI where the processor has AVX2 alone: included before everything else in sources of that set.
#pragma once

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers
#include <immintrin.h>

#define __AVXVNNI__ 1
#define PARLOR_EMULATED_DPWSSD 1

namespace parlor {
namespace avx_vnni {

inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

}  // namespace avx_vnni
}  // namespace parlor
