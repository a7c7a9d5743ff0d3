// exp((x - best) / temperature) over a vocabulary, in float64: what the sampling chain spends its time on.
//
// Bound by about 40 operations a token, so the loop is written for the compiler to vectorise: no branches, no calls,
// no conversions between integers and floats.
#include <cstring>

#include "operations.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

// exp(x) for x <= 0 within 1e-15, zero below -708. Cody-Waite reduction, Taylor series to the 13th power.
// Below -708 everything on the way may be garbage; the sign of x + 708 replaces the result by zero bits.
inline double exp_of_negative(double x) {
    constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52: the sum holds the rounded integer in its low bits
    const double shifted = x * 1.4426950408889634 + kMagic;
    const double n = shifted - kMagic;
    const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t exponent;
    std::memcpy(&exponent, &shifted, 8);
    exponent = (exponent << 52) + (uint64_t{1023} << 52);
    double power;
    std::memcpy(&power, &exponent, 8);
    const double result = p * power, margin = x + 708.0;
    int64_t bits, sign;
    std::memcpy(&bits, &result, 8);
    std::memcpy(&sign, &margin, 8);
    bits &= ~(sign >> 63);
    double kept;
    std::memcpy(&kept, &bits, 8);
    return kept;
}

}  // namespace

void weigh_logits(double* x, int64_t count, double best, double temperature) {
    for (int64_t i = 0; i < count; ++i) x[i] = exp_of_negative((x[i] - best) / temperature);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
