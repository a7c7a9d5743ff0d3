// The packed weight of a linear layer on the GPU, and how activations become halfs.
//
// Packed layout of the quantized kinds. Outputs are taken 16 at a time (a tile), columns 32 at a time (a unit, always of
// one group: groups are filled up with zeros to whole units) and 64 at a time (a step: two units). Short tiles and the
// last step are filled up with zeros too.
//   codes    [tiles][steps][32 lanes][16 bytes]      4-bit: what a lane needs for a step, in one load
//            [tiles][steps][2 units][32 lanes][16 bytes]   8-bit
//   scales   [tiles][groups][8][2] float16           of the outputs g and g + 8
//   zeros    [tiles][groups][8][2]                   bytes or float16 by zero_kind
//   columns  [padded_k] int32                        the column of x that a column is multiplied by, -1 for none;
//                                                    only where the two differ (act-order, odd group sizes)
// The tile is the A of mma.m16n8k16 and the activations are B, so 1 to 8 rows cost the same. Which columns of a step
// belong to one mma is ours to choose: lane (g, t) = (lane / 4, lane % 4) has the columns 32 h + 8 t + 4 i + {0 .. 3} of
// unit h for product i, so that it reads 8 neighbouring activations with one load. Its word of product i of unit h:
//   bits 4 p and 4 p + 16 are two neighbouring columns of output g (p = 0, 2) or g + 8 (p = 1, 3), from column
//   0 (p = 0, 1) or 2 (p = 2, 3) on.  8-bit: two words, pairs 8 bits and 16 bits apart in the same way.
// A dense weight is a copy of the checkpoint's, [n, k].
//
// Fields of linear_weight: padded_k = 64 * steps, num_blocks = steps, num_spans = tiles, blocks = columns or null.
//
// Activations are multiplied by a power of two that brings the largest of a row to 2^13 .. 2^14, and rounded to float16;
// with `exact`, what rounding took away is a second row. Products are summed in float32 per unit, or per step
// where both units have the same scale and zero point, and then scaled.
#pragma once

#include "launch.cuh"

namespace parlor {

constexpr int kTile = 16;
constexpr int kUnit = 32;
constexpr int kStep = 64;

// A weight as kernels take it. A quantized one unless said otherwise.
struct Weight {
    const void* codes;
    const half2* scales;
    const void* zeros;
    const int32_t* columns;
    const float* bias;
    int64_t n, k;
    int steps, tiles, groups, units_per_group;
    uint32_t group_magic;  // unit * group_magic / 2^32 = unit / units_per_group
    int zero_kind, zero;

    __device__ int group_of(int unit) const {
        const int group = units_per_group == 1 ? unit : static_cast<int>(__umulhi(unit, group_magic));
        return group < groups ? group : groups - 1;  // behind the last group there are zeros only
    }
};

// Rows of activations before a product; `norm` may be null.
struct Activations {
    const float* x;
    int64_t stride;
    const float* norm;
    float eps;
};

inline bool is_quantized(const linear_weight& w) { return w.kind == PARLOR_LINEAR_Q4 || w.kind == PARLOR_LINEAR_Q8; }

inline Weight weight_of(const linear_weight& w) {
    const int units = static_cast<int>(is_quantized(w) ? divide_up(w.group_size, kUnit) : 1);
    return {w.codes, reinterpret_cast<const half2*>(w.scales), w.zeros, static_cast<const int32_t*>(w.blocks), w.bias,
            w.n, w.k, static_cast<int>(w.num_blocks), static_cast<int>(w.num_spans), static_cast<int>(w.num_groups),
            units, static_cast<uint32_t>((uint64_t{1} << 32) / units + 1), w.zero_kind, w.zero};
}

int check_weight(const linear_weight* weight);

struct RowScale {
    float up;      // what activations are multiplied by: a power of two
    float factor;  // what products are multiplied by: 1 / up, and 1 / root mean square with a norm
};

__device__ __forceinline__ RowScale row_scale(float largest, float squares, const Activations& a, int64_t k) {
    constexpr int kHighest = 13;
    const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
    const int up = exponent == 128 ? 0 : exponent < kHighest - 126 ? 126 : kHighest - exponent;
    RowScale scale;
    scale.up = __uint_as_float(static_cast<uint32_t>(up + 127) << 23);
    scale.factor = __uint_as_float(static_cast<uint32_t>(127 - up) << 23);
    if (a.norm) scale.factor *= 1.0f / sqrtf(squares / static_cast<float>(k) + a.eps);
    return scale;
}

// Blocks that take rows of activations have so many threads. Of a row that lies in whole float4s a thread has the columns
// 4 * (thread + round * threads) and the next three. It keeps what it has read of x times norm in the first rounds, zeros
// behind the last column, and reads the others again.
constexpr int kRowThreads = 256;
constexpr int kKeptRounds = 4;
constexpr int kRoundColumns = 4 * kRowThreads;

__device__ __forceinline__ bool has_whole_float4s(const Activations& a, const Weight& w) {
    const uintptr_t places = reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.norm) |
                             static_cast<uintptr_t>(a.stride) * sizeof(float) | static_cast<uintptr_t>(w.k) * sizeof(float);
    return !w.columns && places % 16 == 0;
}

struct Measure {
    float largest = 0.0f, squares = 0.0f;

    // Of x, and of x times norm if there is one.
    __device__ __forceinline__ void add(float x, float product) {
        squares += x * x;
        largest = fmaxf(largest, fabsf(product));
    }

    // That of all threads, in every thread; `partial` holds two values for each warp.
    __device__ __forceinline__ void add_up(float* partial) {
        constexpr int kWarps = kRowThreads / 32;
        largest = warp_max(largest);
        squares = warp_sum(squares);
        const int warp = static_cast<int>(threadIdx.x) / 32;
        if (threadIdx.x % 32 == 0) partial[warp] = largest, partial[kWarps + warp] = squares;
        __syncthreads();
        largest = squares = 0.0f;
        for (int i = 0; i < kWarps; ++i) largest = fmaxf(largest, partial[i]), squares += partial[kWarps + i];
        __syncthreads();
    }
};

__device__ __forceinline__ uint32_t pair_bits(float a, float b) {
    const half2 pair = __floats2half2_rn(a, b);
    return static_cast<uint32_t>(__half_as_ushort(__low2half(pair))) |
           static_cast<uint32_t>(__half_as_ushort(__high2half(pair))) << 16;
}
// The rest that rounding to float16 leaves.
__device__ __forceinline__ float rest(float value) { return value - __half2float(__float2half_rn(value)); }

// The scale of one row, in every thread of the block. Either way a thread adds up the same columns in the same order.
// Loads of x are not __ldg: the kernel that wrote it may have run on while this one started.
__device__ __forceinline__ RowScale measure_row(const Activations& a, int64_t row, int64_t k, float* partial) {
    const float* const x = a.x + row * a.stride;
    Measure measure;
#pragma unroll 1
    for (int64_t first = 4 * threadIdx.x; first < k; first += kRoundColumns)
#pragma unroll 1
        for (int64_t i = first; i < k && i < first + 4; ++i) measure.add(x[i], a.norm ? x[i] * a.norm[i] : x[i]);
    measure.add_up(partial);
    return row_scale(measure.largest, measure.squares, a, k);
}

// A thread's columns of a round: x times norm, as it is measured.
__device__ __forceinline__ float4 load_round(const float* x, const float* norm, int left, int round, Measure* measure) {
    const int offset = kRoundColumns * round;
    float4 own = make_float4(0.0f, 0.0f, 0.0f, 0.0f), factors = own;
    if (offset < left) own = *reinterpret_cast<const float4*>(x + offset);
    if (norm && offset < left) factors = __ldg(reinterpret_cast<const float4*>(norm + offset));
    float4 product = own;
    if (norm) product = make_float4(own.x * factors.x, own.y * factors.y, own.z * factors.z, own.w * factors.w);
    measure->add(own.x, product.x);
    measure->add(own.y, product.y);
    measure->add(own.z, product.z);
    measure->add(own.w, product.w);
    return product;
}

// Four columns of a row, and with two parts what rounding takes away from them.
__device__ __forceinline__ void store_4(float4 value, float up, int parts, half* target, int64_t stride) {
    const float4 v = make_float4(value.x * up, value.y * up, value.z * up, value.w * up);
    *reinterpret_cast<uint2*>(target) = make_uint2(pair_bits(v.x, v.y), pair_bits(v.z, v.w));
    if (parts == 2)
        *reinterpret_cast<uint2*>(target + stride) =
            make_uint2(pair_bits(rest(v.x), rest(v.y)), pair_bits(rest(v.z), rest(v.w)));
}

// Measure a row that has whole float4s, and store its columns first .. first + count - 1 as halfs; see store_4().
__device__ __forceinline__ RowScale convert_row(const Activations& a, int64_t row, int k, int parts, int first, int count,
                                                half* target, int64_t stride, float* partial) {
    const int own = 4 * static_cast<int>(threadIdx.x), left = k - own;
    const float* const x = a.x + row * a.stride + own;
    const float* const norm = a.norm ? a.norm + own : nullptr;
    float4 kept[kKeptRounds];
    Measure measure;
#pragma unroll
    for (int round = 0; round < kKeptRounds; ++round) kept[round] = load_round(x, norm, left, round, &measure);
#pragma unroll 4
    for (int round = kKeptRounds; round * kRoundColumns < k; ++round) load_round(x, norm, left, round, &measure);
    measure.add_up(partial);
    const RowScale scale = row_scale(measure.largest, measure.squares, a, k);
    const auto store = [&](int round, float4 value) {
        const int column = own + round * kRoundColumns - first;
        if (column >= 0 && column < count) store_4(value, scale.up, parts, target + column, stride);
    };
#pragma unroll
    for (int round = 0; round < kKeptRounds; ++round) store(round, kept[round]);
    Measure again;
#pragma unroll 4
    for (int round = kKeptRounds; round * kRoundColumns < first + count; ++round)
        store(round, load_round(x, norm, left, round, &again));
    return scale;
}

// Column c of a row, as packed and before rounding.
__device__ __forceinline__ float activation(const Activations& a, const Weight& w, const float* x, int64_t c, float up) {
    const int64_t source = w.columns ? w.columns[c] : c < w.k ? c : -1;
    if (source < 0) return 0.0f;
    return (a.norm ? x[source] * a.norm[source] : x[source]) * up;
}

__device__ __forceinline__ half2 as_half2(uint32_t bits) {
    return __halves2half2(__ushort_as_half(static_cast<unsigned short>(bits)),
                          __ushort_as_half(static_cast<unsigned short>(bits >> 16)));
}
__device__ __forceinline__ float2 floats_of(uint32_t pair) { return __half22float2(as_half2(pair)); }

// The zero points of the outputs g and g + 8, as pairs of float16 that the fragments need; see fragment().
struct Zeros {
    uint32_t low;   // 1024 + zero of g
    uint32_t high;  // 4-bit: -64 - zero of g + 8; 8-bit: 1024 + zero of g + 8
};

// `bytes`: that of g, that of g + 8.
template <int kBits>
__device__ __forceinline__ Zeros make_zeros(uint32_t bytes) {
    // 0x6400 is 1024 in float16; the next integers follow, one by one. 0x6380 is 960.
    const uint32_t above = __byte_perm(bytes, 0x64, 0x4141);
    return {__byte_perm(bytes, 0x64, 0x4040), kBits == 4 ? subtract_pairs(0x63806380u, above) : above};
}

// One word of four pairs (4 bits), or two words of two pairs each (8 bits), as the A of an mma: code - zero, exactly.
__device__ __forceinline__ void fragment(uint32_t word, const Zeros& zeros, uint32_t (&a)[4]) {
    // A nibble or-ed into 1024 is 1024 + q in the low place and 1024 + 16 q in the high one: (1024 + 16 q) / 16 - 64 - z.
    constexpr uint32_t kSixteenths = 0x2c002c00u;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        a[2 * i] = subtract_pairs(masked_or(word, 0x000f000fu, 0x64006400u), zeros.low);
        a[2 * i + 1] = fma_pairs(masked_or(word, 0x00f000f0u, 0x64006400u), kSixteenths, zeros.high);
        word >>= 8;
    }
}
__device__ __forceinline__ void fragment(uint32_t first, uint32_t second, const Zeros& zeros, uint32_t (&a)[4]) {
    constexpr uint32_t kBytes = 0x00ff00ffu, k1024 = 0x64006400u;
    a[0] = subtract_pairs(masked_or(first, kBytes, k1024), zeros.low);
    a[1] = subtract_pairs(masked_or(first >> 8, kBytes, k1024), zeros.high);
    a[2] = subtract_pairs(masked_or(second, kBytes, k1024), zeros.low);
    a[3] = subtract_pairs(masked_or(second >> 8, kBytes, k1024), zeros.high);
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// What becomes of one value y of a product; gate is that of SILU_MUL, old what lies there for ADD and GATE.
__device__ __forceinline__ float finished(int epilogue, float y, float gate, float old) {
    switch (epilogue) {
        case PARLOR_EPILOGUE_ADD: return old + y;
        case PARLOR_EPILOGUE_SILU_MUL: return silu(gate) * y;
        case PARLOR_EPILOGUE_GATE: return silu(old) * y;
        default: return y;
    }
}
__device__ __forceinline__ void finish(float* out, int epilogue, float y, float gate) {
    const bool has_old = epilogue == PARLOR_EPILOGUE_ADD || epilogue == PARLOR_EPILOGUE_GATE;
    *out = finished(epilogue, y, gate, has_old ? *out : 0.0f);
}

}  // namespace parlor
