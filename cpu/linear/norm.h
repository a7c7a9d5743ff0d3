// RMS normalization of a row on its way into a linear layer.
#pragma once

#include <cmath>

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {

// Fused wherever the set can: left to the compiler, that would depend on how much it optimizes, and so would the bits.
inline float multiply_add(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// What a row is multiplied by if it is to be normalized: 1 / sqrt(mean(x^2) + eps). Summed in kColumnUnit lanes, so that
// every set with a fused multiply-add comes to the same bits.
inline float norm_factor(const Input& input, int64_t k, const float* x) {
    float lanes[kColumnUnit] = {};
    int64_t i = 0;
    for (; i + kColumnUnit <= k; i += kColumnUnit) {
        for (int j = 0; j < kColumnUnit; ++j) lanes[j] = multiply_add(x[i + j], x[i + j], lanes[j]);
    }
    for (int j = 0; i + j < k; ++j) lanes[j] = multiply_add(x[i + j], x[i + j], lanes[j]);
    for (int half = kColumnUnit / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    }
    return 1.0f / std::sqrt(lanes[0] / static_cast<float>(k) + input.eps);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
