// Rounding of weights, see rounding.cpp.
#pragma once

#include "linear.h"

namespace parlor {

constexpr int64_t kRoundedGroup = 32;    // weights that share a step
constexpr int kRoundingCandidates = 16;  // steps that are tried
constexpr float kLeastRounded = 1e-30f;  // a group of smaller numbers is one of zeros

// What part of the range of codes the largest weight takes: with 4 bits it pays to cut it off, or to leave room.
inline float rounding_candidate(int bits, int index) {
    return bits == 4 ? 0.70f + 0.025f * static_cast<float>(index) : 0.97f + 0.002f * static_cast<float>(index);
}

}  // namespace parlor

// values [num_groups, 32] -> codes around 2^(bits - 1), scales [num_groups] which are float16 numbers.
PARLOR_DECLARE(void, round_groups, const float* values, int64_t num_groups, int bits, uint8_t* codes, float* scales)
