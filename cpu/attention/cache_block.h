// How the codes and scales of PARLOR_Q8 and PARLOR_Q4 lie in a block of P keys or values, and the Hadamard matrix
// that both are multiplied by: kernels.h says the same in words, model/kernels/reference/cache.py in torch.
#pragma once

#include <cmath>
#include <cstdint>

#include "simd.h"

namespace parlor {
namespace PARLOR_ISA_NS {

constexpr int64_t kCacheGroup = 32;  // dimensions that share a scale

struct CacheBlock {
    int64_t bits, page_size, head_dim;

    int64_t groups() const { return (head_dim + kCacheGroup - 1) / kCacheGroup; }
    int64_t code_bytes() const { return page_size * head_dim * bits / 8; }
    int64_t bytes() const { return code_bytes() + page_size * groups() * 2; }

    // Scales [groups, page_size].
    const half_t* scales(const void* block) const {
        return reinterpret_cast<const half_t*>(static_cast<const uint8_t*>(block) + code_bytes());
    }
    half_t* scales(void* block) const { return const_cast<half_t*>(scales(const_cast<const void*>(block))); }
};

#if defined(__AVX2__)
// Steps 1, 2 and 4 of the transform below within 8 numbers: (a + b, a - b) of neighbours, pairs and halves.
inline __m256 hadamard_of_8(__m256 x) {
    const __m256 odd = _mm256_castsi256_ps(_mm256_setr_epi32(0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN));
    x = _mm256_add_ps(_mm256_moveldup_ps(x), _mm256_xor_ps(_mm256_movehdup_ps(x), odd));
    const __m256 second = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, INT32_MIN, INT32_MIN, 0, 0, INT32_MIN, INT32_MIN));
    x = _mm256_add_ps(_mm256_permute_ps(x, 0x44), _mm256_xor_ps(_mm256_permute_ps(x, 0xEE), second));
    const __m256 upper = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, 0, 0, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, x, 0x00), _mm256_xor_ps(_mm256_permute2f128_ps(x, x, 0x11), upper));
}
#endif

// x[n] times the normalized Hadamard matrix, in blocks of the largest power of two that divides n; 8 divides n.
inline void hadamard(float* x, int64_t n) {
    const int64_t block = n & -n;
    int64_t step = 1;
#if defined(__AVX2__)
    for (int64_t i = 0; i < n; i += 8) _mm256_storeu_ps(x + i, hadamard_of_8(_mm256_loadu_ps(x + i)));
    step = 8;
#endif
    for (; step < block; step *= 2) {
        for (int64_t start = 0; start < n; start += 2 * step) {
            float* const low = x + start;
            float* const high = low + step;
            if (step >= kLanes) {
                for (int64_t i = 0; i < step; i += kLanes) {
                    const Vec a = load(low + i), b = load(high + i);
                    store(low + i, a + b);
                    store(high + i, a - b);
                }
#if defined(__AVX2__)
            } else if (step == 8) {
                const __m256 a = _mm256_loadu_ps(low), b = _mm256_loadu_ps(high);
                _mm256_storeu_ps(low, _mm256_add_ps(a, b));
                _mm256_storeu_ps(high, _mm256_sub_ps(a, b));
#endif
            } else {
                for (int64_t i = 0; i < step; ++i) {
                    const float a = low[i], b = high[i];
                    low[i] = a + b;
                    high[i] = a - b;
                }
            }
        }
    }
    const float factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(block)));
    for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
