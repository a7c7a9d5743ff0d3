// silu(gate) * up, with which linear() ends where an MLP's gate and up were multiplied together.
//
// Bound by exp(); an element does not depend on where in a vector it stands.
#include "linear.h"
#include "simd.h"

namespace parlor {
namespace PARLOR_ISA_NS {

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
    const auto value = [](Vec g, Vec u) { return g / (set1(1.0f) + exp(zero() - g)) * u; };
    for_lanes(count, [&](int64_t i) { store(out + i, value(load(gate + i), load(up + i))); },
              [&](int64_t i, int64_t n) { store_n(out + i, value(load_n(gate + i, n), load_n(up + i, n)), n); });
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
