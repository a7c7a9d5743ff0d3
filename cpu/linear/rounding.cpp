// Weights rounded to whole numbers of steps, with the step of each group that loses least; compiled for each set.
//
// Bound by arithmetic: five operations a weight and candidate. `kLanes` sums a group are what compilers keep in registers.
// Reference: round_groups() in model/kernels/rounding.py.
#include <cmath>

#include "rounding.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer

inline float rounded(float value, float least, float most) {
    const float whole = (value + kRounder) - kRounder;
    return whole < least ? least : whole > most ? most : whole;
}

// The nearest number with the 11 bits of a float16.
inline float as_half(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits_to_float((bits + 0x1000) & 0xFFFFE000);
}

// (sum of x * code)^2 / (sum of code^2), by which the best step for these codes, their quotient, lowers the error.
float gain(const float* x, float inverse, float least, float most, float* step) {
    float products[kLanes] = {}, squares[kLanes] = {};
    for (int64_t i = 0; i < kRoundedGroup; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const float code = rounded(x[i + lane] * inverse, least, most);
            products[lane] += x[i + lane] * code;
            squares[lane] += code * code;
        }
    }
    float product = 0.0f, square = 0.0f;
    for (int64_t lane = 0; lane < kLanes; ++lane) product += products[lane], square += squares[lane];
    *step = square > 0.0f ? product / square : 0.0f;
    return square > 0.0f ? product * (product / square) : 0.0f;
}

}  // namespace

void round_groups(const float* values, int64_t num_groups, int bits, uint8_t* codes, float* scales) {
    const float middle = static_cast<float>(1 << (bits - 1));
    for (int64_t group = 0; group < num_groups; ++group) {
        const float* const x = values + group * kRoundedGroup;
        uint8_t* const out = codes + group * kRoundedGroup;
        float largest = 0.0f;  // by magnitude, with its sign
        for (int64_t i = 0; i < kRoundedGroup; ++i) largest = std::fabs(x[i]) > std::fabs(largest) ? x[i] : largest;
        float best = -1.0f, scale = 0.0f;
        for (int candidate = 0; candidate < kRoundingCandidates && std::fabs(largest) > kLeastRounded; ++candidate) {
            float step;
            const float end = -middle * rounding_candidate(bits, candidate);  // what the largest becomes
            const float found = gain(x, end / largest, -middle, middle - 1.0f, &step);
            if (found > best) best = found, scale = step;
        }
        scale = as_half(scale);
        const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
        for (int64_t i = 0; i < kRoundedGroup; ++i)
            out[i] = static_cast<uint8_t>(static_cast<int32_t>(rounded(x[i] * inverse, -middle, middle - 1.0f) + middle));
        scales[group] = scale;
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
