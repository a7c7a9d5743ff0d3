// Packing a linear layer's weight into the layout of linear.cuh, once at load; and unpacking it to float16 for a product
// by cuBLAS, when there are many rows.
//
// Packing runs on the GPU: codes come there one a byte, as the checkpoint's reader made them, and a copy over PCIe costs
// less than packing on the CPU would. Bound by memory: 1.5 bytes a 4-bit weight. Dequantizing reads half a byte and
// writes two a weight: 7B takes 15 GB, 3.6 ms at 4.3 TB/s, so it is worth it only where cuBLAS gains more than that.
// Reference: dequantize() in model/kernels/reference/linear.py.
#include "linear.cuh"

namespace parlor {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 30;
constexpr int kThreads = 256;

int64_t round_up(int64_t value, int64_t unit) { return divide_up(value, unit) * unit; }

bool needs_columns(const linear_weight& w) { return w.perm || (w.num_groups > 1 && w.group_size % kUnit != 0); }

struct Sections {
    int64_t codes, scales, zeros, columns;

    int64_t sum() const { return codes + scales + zeros + columns; }
};

Sections sections_of(const linear_weight& w) {
    constexpr int64_t kAlignment = 128;
    if (!is_quantized(w)) return {round_up(w.n * w.k * (w.kind == PARLOR_LINEAR_F32 ? 4 : 2), kAlignment), 0, 0, 0};
    const int64_t values = w.num_spans * kTile * w.num_groups;
    const int64_t zero_bytes = w.zero_kind == PARLOR_ZERO_F16 ? 2 : w.zero_kind == PARLOR_ZERO_U8 ? 1 : 0;
    return {w.num_spans * kTile * w.padded_k / (w.kind == PARLOR_LINEAR_Q4 ? 2 : 1), round_up(values * 2, kAlignment),
            round_up(values * zero_bytes, kAlignment), needs_columns(w) ? round_up(w.padded_k * 4, kAlignment) : 0};
}

int check(const linear_weight& w) {
    if (w.n < 1 || w.k < 1 || w.n > kMaxSize || w.k > kMaxSize) return PARLOR_ERROR_SIZE;
    if (w.kind < PARLOR_LINEAR_Q4 || w.kind > PARLOR_LINEAR_F32) return PARLOR_ERROR_DTYPE;
    if (!is_quantized(w)) return w.group_size == 0 && !w.perm ? PARLOR_OK : PARLOR_ERROR_VALUE;
    if (w.group_size < 1 || w.group_size > w.k) return PARLOR_ERROR_SIZE;
    if (w.zero_kind < PARLOR_ZERO_ONE || w.zero_kind > PARLOR_ZERO_F16) return PARLOR_ERROR_DTYPE;
    return w.zero >= 0 && w.zero <= 255 ? PARLOR_OK : PARLOR_ERROR_VALUE;
}

int check_buffer(const linear_weight& w, const void* source, const void* buffer) {
    if (!source || !buffer || !is_aligned(buffer, 64)) return PARLOR_ERROR_POINTER;
    return w.nbytes > 0 ? PARLOR_OK : PARLOR_ERROR_SIZE;  // else linear_plan() was not called
}

// What the packing kernels need to know of the source.
struct Source {
    int64_t n, k, group_size;
    int steps, tiles, groups, units_per_group;

    // The column of the codes that column c of the packed weight holds; -1 for none.
    __device__ int64_t column(int64_t c) const {
        const int64_t unit = c / kUnit, group = unit / units_per_group;
        const int64_t within = unit % units_per_group * kUnit + c % kUnit;
        const int64_t source = group * group_size + within;
        return group < groups && within < group_size && source < k ? source : -1;
    }
    __device__ uint32_t code(const uint8_t* codes, int64_t row, int64_t c) const {
        const int64_t source = column(c);
        return row < n && source >= 0 ? codes[row * k + source] : 0;
    }
};

template <int kBits>
__global__ void __launch_bounds__(kThreads) pack_codes(Source s, const uint8_t* __restrict__ codes, uint4* packed) {
    wait_for_previous_kernel();
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t per_step = kBits == 4 ? 32 : 64;
    if (index >= per_step * s.steps * s.tiles) return;
    const int lane = static_cast<int>(index % 32), g = lane / 4, t = lane % 4;
    const int64_t step = index / per_step % s.steps, tile = index / per_step / s.steps;
    uint32_t words[4];
    for (int j = 0; j < 4; ++j) {
        words[j] = 0;
        const int unit = kBits == 4 ? j / 2 : static_cast<int>(index / 32 % 2);
        const int product = kBits == 4 ? j % 2 : j / 2;
        const int64_t first = step * kStep + unit * kUnit + 8 * t + 4 * product;
        const int pairs = kBits == 4 ? 4 : 2;
        for (int p = 0; p < pairs; ++p) {
            const int64_t row = tile * kTile + g + p % 2 * 8;
            const int64_t column = first + (kBits == 4 ? p / 2 : j % 2) * 2;
            words[j] |= s.code(codes, row, column) << (kBits * p) | s.code(codes, row, column + 1) << (kBits * p + 16);
        }
    }
    packed[index] = make_uint4(words[0], words[1], words[2], words[3]);
}

// [n, groups] -> [tiles][groups][8][2]
template <class T>
__global__ void __launch_bounds__(kThreads) pack_groups(Source s, const T* __restrict__ source, T* packed) {
    wait_for_previous_kernel();
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= int64_t{kTile} * s.groups * s.tiles) return;
    const int64_t group = index / kTile % s.groups, tile = index / kTile / s.groups;
    const int64_t row = tile * kTile + index % kTile / 2 + index % 2 * 8;
    packed[index] = row < s.n ? source[row * s.groups + group] : T{0};
}

__global__ void __launch_bounds__(kThreads) pack_columns(Source s, const int32_t* __restrict__ perm, int32_t* columns) {
    wait_for_previous_kernel();
    const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (c >= int64_t{kStep} * s.steps) return;
    const int64_t source = s.column(c);
    columns[c] = source < 0 ? -1 : perm ? perm[source] : static_cast<int32_t>(source);
}

template <class Word>
__global__ void __launch_bounds__(kThreads) copy_words(const Word* __restrict__ source, Word* target, int64_t words) {
    wait_for_previous_kernel();
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < words; i += stride)
        target[i] = source[i];
}

dim3 blocks_for(int64_t count) { return dim3(static_cast<unsigned>(divide_up(count, kThreads))); }

// One warp a tile and step: what it holds as float16, scaled.
template <int kBits>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(Weight w, int64_t first_tile, int64_t tiles, half* __restrict__ out) {
    wait_for_previous_kernel();
    const int64_t index = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
    if (index >= tiles * w.steps) return;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int64_t tile = first_tile + index / w.steps, step = index % w.steps, padded_k = int64_t{w.steps} * kStep;
#pragma unroll
    for (int unit = 0; unit < 2; ++unit) {
        const uint4* const codes = static_cast<const uint4*>(w.codes);
        const uint4 code = kBits == 4 ? codes[(tile * w.steps + step) * 32 + lane]
                                      : codes[((tile * w.steps + step) * 2 + unit) * 32 + lane];
        const int group = w.group_of(static_cast<int>(step) * 2 + unit);
        const int64_t at = (tile * w.groups + group) * 8 + g;
        const float2 scales = __half22float2(w.scales[at]);
        float2 zeros = make_float2(static_cast<float>(w.zero), static_cast<float>(w.zero));
        if (w.zero_kind == PARLOR_ZERO_F16) zeros = __half22float2(static_cast<const half2*>(w.zeros)[at]);
        if (w.zero_kind == PARLOR_ZERO_U8) {
            const uint8_t* const bytes = static_cast<const uint8_t*>(w.zeros) + 2 * at;
            zeros = make_float2(static_cast<float>(bytes[0]), static_cast<float>(bytes[1]));
        }
        const Zeros none = make_zeros<kBits>(0);
        uint32_t rows[2][4];  // of outputs g and g + 8: eight columns
        for (int product = 0; product < 2; ++product) {
            uint32_t a[4];
            if (kBits == 4)
                fragment(unit == 0 ? (product == 0 ? code.x : code.y) : (product == 0 ? code.z : code.w), none, a);
            else
                fragment(product == 0 ? code.x : code.z, product == 0 ? code.y : code.w, none, a);
            for (int p = 0; p < 4; ++p) {
                const float2 q = floats_of(a[p]);
                const float zero = p % 2 == 0 ? zeros.x : zeros.y, scale = p % 2 == 0 ? scales.x : scales.y;
                rows[p % 2][product * 2 + p / 2] = pair_bits((q.x - zero) * scale, (q.y - zero) * scale);
            }
        }
        const int64_t column = step * kStep + unit * kUnit + 8 * t;
        for (int r = 0; r < 2; ++r) {
            const int64_t row = tile * kTile + g + 8 * r;
            if (row < w.n)  // by an intrinsic: of an assignment the compiler makes four stores
                __stcg(reinterpret_cast<uint4*>(out + (row - first_tile * kTile) * padded_k + column),
                       make_uint4(rows[r][0], rows[r][1], rows[r][2], rows[r][3]));
        }
    }
}

}  // namespace

int check_weight(const linear_weight* weight) {
    if (!weight || !weight->codes) return PARLOR_ERROR_POINTER;
    if (is_quantized(*weight) && (!weight->scales || (needs_columns(*weight) && !weight->blocks)))
        return PARLOR_ERROR_POINTER;
    return check(*weight);
}

}  // namespace parlor

using namespace parlor;

extern "C" int linear_plan(linear_weight* weight) {
    if (!weight) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    w.num_groups = w.num_blocks = w.num_spans = 0;
    w.num_blocks = divide_up(w.k, kStep);
    w.padded_k = w.num_blocks * kStep;  // of activations; a dense weight has no padding
    if (is_quantized(w)) {
        w.num_groups = divide_up(w.k, w.group_size);
        const int64_t last = w.k - (w.num_groups - 1) * w.group_size;
        const int64_t units = (w.num_groups - 1) * divide_up(w.group_size, kUnit) + divide_up(last, kUnit);
        w.num_blocks = divide_up(units, kStep / kUnit);
        w.padded_k = w.num_blocks * kStep;
        w.num_spans = divide_up(w.n, kTile);
        if (w.num_blocks > kMaxSize / kStep) return PARLOR_ERROR_SIZE;
    }
    w.nbytes = sections_of(w).sum();
    return PARLOR_OK;
}

extern "C" int linear_pack_quantized(linear_weight* weight, const uint8_t* codes, const uint16_t* scales,
                                     const void* zeros, void* buffer, void* stream) {
    if (!weight || !scales) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    if (const int error = check_buffer(w, codes, buffer)) return error;
    if (!is_quantized(w)) return PARLOR_ERROR_DTYPE;
    if (w.zero_kind != PARLOR_ZERO_ONE && !zeros) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;

    const Sections bytes = sections_of(w);
    char* const base = static_cast<char*>(buffer);
    uint16_t* const packed_scales = reinterpret_cast<uint16_t*>(base + bytes.codes);
    char* const packed_zeros = base + bytes.codes + bytes.scales;
    int32_t* const columns = reinterpret_cast<int32_t*>(packed_zeros + bytes.zeros);
    const Source source{w.n, w.k, w.group_size, static_cast<int>(w.num_blocks), static_cast<int>(w.num_spans),
                        static_cast<int>(w.num_groups), static_cast<int>(divide_up(w.group_size, kUnit))};
    const int64_t loads = w.num_spans * w.num_blocks * (w.kind == PARLOR_LINEAR_Q4 ? 32 : 64);
    const int64_t values = w.num_spans * kTile * w.num_groups;
    uint4* const packed = static_cast<uint4*>(buffer);
    int error = w.kind == PARLOR_LINEAR_Q4
        ? launch(device, pack_codes<4>, blocks_for(loads), dim3(kThreads), 0, stream, source, codes, packed)
        : launch(device, pack_codes<8>, blocks_for(loads), dim3(kThreads), 0, stream, source, codes, packed);
    if (!error)
        error = launch(device, pack_groups<uint16_t>, blocks_for(values), dim3(kThreads), 0, stream, source, scales,
                       packed_scales);
    if (!error && w.zero_kind == PARLOR_ZERO_U8)
        error = launch(device, pack_groups<uint8_t>, blocks_for(values), dim3(kThreads), 0, stream, source,
                       static_cast<const uint8_t*>(zeros), reinterpret_cast<uint8_t*>(packed_zeros));
    if (!error && w.zero_kind == PARLOR_ZERO_F16)
        error = launch(device, pack_groups<uint16_t>, blocks_for(values), dim3(kThreads), 0, stream, source,
                       static_cast<const uint16_t*>(zeros), reinterpret_cast<uint16_t*>(packed_zeros));
    if (!error && needs_columns(w))
        error = launch(device, pack_columns, blocks_for(w.padded_k), dim3(kThreads), 0, stream, source, w.perm, columns);
    if (error) return error;
    w.codes = buffer;
    w.scales = packed_scales;
    w.zeros = packed_zeros;
    w.blocks = needs_columns(w) ? columns : nullptr;
    w.spans = nullptr;
    return PARLOR_OK;
}

extern "C" int linear_pack_dense(linear_weight* weight, const void* values, void* buffer, void* stream) {
    if (!weight) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    if (const int error = check_buffer(w, values, buffer)) return error;
    if (is_quantized(w)) return PARLOR_ERROR_DTYPE;
    Device device;
    if (const int error = device.read()) return error;
    const int64_t bytes = w.n * w.k * (w.kind == PARLOR_LINEAR_F32 ? 4 : 2);
    const bool is_wide = bytes % 16 == 0 && is_aligned(values, 16);
    const int64_t words = bytes / (is_wide ? 16 : 2);
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(divide_up(words, kThreads), device.multiprocessors * 16)));
    const int error = is_wide ? launch(device, copy_words<uint4>, grid, dim3(kThreads), 0, stream,
                                       static_cast<const uint4*>(values), static_cast<uint4*>(buffer), words)
                              : launch(device, copy_words<uint16_t>, grid, dim3(kThreads), 0, stream,
                                       static_cast<const uint16_t*>(values), static_cast<uint16_t*>(buffer), words);
    if (error) return error;
    w.codes = buffer;
    w.scales = nullptr;
    w.zeros = w.blocks = w.spans = nullptr;
    return PARLOR_OK;
}

extern "C" int linear_dequantize(const linear_weight* weight, int64_t first, int64_t count, uint16_t* out,
                                 void* stream) {
    if (const int error = check_weight(weight)) return error;
    if (!is_quantized(*weight)) return PARLOR_ERROR_DTYPE;
    if (first < 0 || count < 1 || first % kTile != 0 || first + count > weight->n) return PARLOR_ERROR_SIZE;
    if (first + count != weight->n && count % kTile != 0) return PARLOR_ERROR_SIZE;
    if (!out || !is_aligned(out, 16)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Weight w = weight_of(*weight);
    const int64_t tiles = divide_up(count, kTile);
    const dim3 grid = blocks_for(tiles * w.steps * 32);
    half* const halfs = reinterpret_cast<half*>(out);
    return weight->kind == PARLOR_LINEAR_Q4
        ? launch(device, dequantize_kernel<4>, grid, dim3(kThreads), 0, stream, w, first / kTile, tiles, halfs)
        : launch(device, dequantize_kernel<8>, grid, dim3(kThreads), 0, stream, w, first / kTile, tiles, halfs);
}
