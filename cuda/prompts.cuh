// Products of a prompt's rows in float16, as another library leaves them. See prompts.cu.
#pragma once

#include "linear.cuh"

namespace parlor {
namespace {

constexpr int kAtOnce = 8;  // numbers of float16 that a thread reads with one load

// A product in float16, as numbers: times the factor of its row, and bias.
struct Halfs {
    const half* values;  // [rows, n]; null: there is none
    const float* factors;
    const float* bias;   // or null
    int64_t n;
};

__device__ __forceinline__ void floats_of_8(const uint4& loaded, float (&values)[kAtOnce]) {
    const uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = floats_of(words[i]);
        values[2 * i] = pair.x, values[2 * i + 1] = pair.y;
    }
}
__device__ __forceinline__ uint4 bits_of_8(const float (&values)[kAtOnce], float factor) {
    return make_uint4(pair_bits(values[0] * factor, values[1] * factor), pair_bits(values[2] * factor, values[3] * factor),
                      pair_bits(values[4] * factor, values[5] * factor), pair_bits(values[6] * factor, values[7] * factor));
}
// Eight numbers of a product, at a column that eight divide.
__device__ __forceinline__ uint4 load_product_8(const Halfs& product, int64_t row, int64_t column) {
    return *reinterpret_cast<const uint4*>(product.values + row * product.n + column);
}
__device__ __forceinline__ void numbers_of_8(const uint4& loaded, const Halfs& product, int64_t column, float factor,
                                             float (&values)[kAtOnce]) {
    floats_of_8(loaded, values);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) values[i] = values[i] * factor + (product.bias ? __ldg(product.bias + column + i) : 0.0f);
}

}  // namespace
}  // namespace parlor
