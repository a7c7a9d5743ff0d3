// y = x @ weight^T + bias for quantized weights, with the norm of x before it and an epilogue behind it.
//
// Bound by reading the codes: half a byte a 4-bit weight, plus 2 bytes a scale for each group (4.125 to 4.5 bits a
// weight). Floor: those bytes over the bandwidth; 4,096 x 4,096 in groups of 128 is 8.7 MB, 2.0 us at 4.3 TB/s. To get
// there a Hopper chip must take 31 weights a clock and multiprocessor, which float16 arithmetic of single threads manages
// for one row only; hence tensor cores, with the weights as A (16 outputs) and the rows as B (8): up to 8 rows cost
// what one costs.
//
// A block has two tiles of outputs at a time and goes over the columns with 8 warps, step after step by turns; it comes
// back for further tiles, so that its activations are made once. What a warp needs for its next three steps is on its way
// to shared memory while it computes, 24 KB a block, and begins to be before the previous kernel has ended. Where there are
// too few tiles to fill the GPU, blocks share the columns of a tile (a split); the last to arrive adds what the others left,
// in their order.
//
// The inner loop has some 190 instructions for the 2,048 4-bit weights of a warp's step, 84 of them of the kind that Hopper
// issues at half the rate, and 20 of all for a new pair of tiles only: less time than reading them takes. Eight rows more are 17
// instructions more, so a block takes up to 32 rows. Of more than 8 its shared memory may have no room for all columns
// (32 rows of 4,096 are 262 KB): then it has some of the warps' turns (slices), for two, four or eight times as many tiles.
//
// The sum of one output: per step of 64 columns (32 if those have two scales) by the tensor core, times the scale, added
// up over a warp's steps, then over the warps as a tree, then over the splits. None of that depends on the number of rows, so
// neither does a row's result. Many rows are converted to float16 by a kernel of their own, few by each block (the same
// arithmetic).
// Layout of the weight: linear.cuh. Reference: linear() in model/kernels/reference/linear.py.
#include "multiply.cuh"

namespace parlor {
namespace {

constexpr int kMaxRows = 64;  // rows of one pass; more rows take more passes

// Grid: blocks that take pairs of tiles by turns, splits and slices, chunks of 8 * kColumns / parts rows.
template <class V>
__global__ void __launch_bounds__(kThreads, blocks_with_registers<V>()) multiply_kernel(const Product p) {
    const int chunk = blockIdx.z;
    multiply_tiles<V>(p, chunk, chunk * (8 * V::kColumns >> (p.parts - 1)));
}

// A row as float16 for multiply_kernel (and cuBLAS): staged [rows * parts, padded_k].
__global__ void __launch_bounds__(kThreads) stage_kernel(Weight w, Activations a, int parts, half* __restrict__ staged,
                                                         float* __restrict__ factors) {
    SHARED_ARRAY(float, measured, 2 * kWarps);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t row = blockIdx.x, padded_k = int64_t{w.steps} * kStep;
    half* const target = staged + row * parts * padded_k;
    if (has_whole_float4s(a, w)) {
        const RowScale scale =
            convert_row(a, row, static_cast<int>(w.k), parts, 0, static_cast<int>(padded_k), target, padded_k, measured);
        if (threadIdx.x == 0) factors[row] = scale.factor;
        return;
    }
    const RowScale scale = measure_row(a, row, w.k, measured);
    if (threadIdx.x == 0) factors[row] = scale.factor;
    const float* const x = a.x + row * a.stride;
    uint32_t* const words = reinterpret_cast<uint32_t*>(target);
    for (int64_t c = 2 * threadIdx.x; c < padded_k; c += 2 * kThreads) {
        const float low = activation(a, w, x, c, scale.up), high = activation(a, w, x, c + 1, scale.up);
        words[c / 2] = pair_bits(low, high);
        if (parts == 2) words[(padded_k + c) / 2] = pair_bits(rest(low), rest(high));
    }
}

// What is left after a product by cuBLAS: factors, bias, epilogue. Not __restrict__: it may start before the kernel that
// writes the product has ended, and what a kernel reads through the constant cache must not change while it runs.
__global__ void __launch_bounds__(kThreads) finish_kernel(const float* product, const float* factors, const float* bias, float* out,
                                                          int64_t out_stride, int64_t rows, int64_t n, int epilogue) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t columns = epilogue == PARLOR_EPILOGUE_SILU_MUL ? n / 2 : n;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= columns) return;
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const float* const y = product + row * n;
        const int64_t last = n - columns + i;  // of SILU_MUL the output whose gate is i
        const float factor = factors ? factors[row] : 1.0f;
        const float gate = y[i] * factor + (bias ? bias[i] : 0.0f);
        finish(out + row * out_stride + i, epilogue, y[last] * factor + (bias ? bias[last] : 0.0f), gate);
    }
}

int launch_finish(const Device& device, const float* product, const float* factors, const float* bias, int64_t n, float* out,
                  int64_t out_stride, int64_t m, int epilogue, void* stream) {
    const int64_t columns = epilogue == PARLOR_EPILOGUE_SILU_MUL ? n / 2 : n;
    const dim3 grid(static_cast<unsigned>(divide_up(columns, kThreads)), static_cast<unsigned>(std::min(m, kMaxGridY)));
    return launch(device, finish_kernel, grid, dim3(kThreads), 0, stream, product, factors, bias, out, out_stride, m,
                  n, epilogue);
}

template <class V>
int launch_multiply(const Device& device, Product p, Scratch scratch, void* stream) {
    const auto kernel = multiply_kernel<V>;
    const int chunk = 8 * V::kColumns / p.parts, chunks = static_cast<int>(divide_up(p.rows, chunk));
    const int64_t shared = share_out<V>(device, &p, std::min(p.rows, chunk));
    if (!shared) return PARLOR_ERROR_MEMORY;
    if (const int error = take_partials<V>(&p, chunks, &scratch)) return error;
    int at_once = 0;
    if (const int error = blocks_of_multiprocessor(device, reinterpret_cast<const void*>(kernel), kThreads,
                                                   static_cast<size_t>(shared), &at_once))
        return error;
    // As many as end together: more would leave some to the end, with too little on its way.
    const int64_t slots = int64_t{device.multiprocessors} * std::min(at_once, kBlocksAtOnce);
    const int64_t groups = divide_up(p.pairs, Slices<V>(p).pairs());
    const int of_columns = blocks_of_columns<V>(p);
    const int64_t turns = divide_up(groups, std::max<int64_t>(1, slots / (int64_t{of_columns} * chunks)));
    // The tiles of a pair that lie apart want a block's next pair to lie as its first one.
    const int64_t unit = turns > 1 ? divide_up(int64_t{1} << p.pair_bits, Slices<V>(p).pairs()) : 1;
    const int64_t blocks = divide_up(divide_up(groups, turns), unit) * unit;
    bound_prefetches<V>(device, blocks * of_columns * chunks, &p);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(of_columns), static_cast<unsigned>(chunks));
    return launch(device, kernel, grid, dim3(kThreads), static_cast<size_t>(shared), stream, p);
}

// For as many rows at a time as there are, or as shared memory and the workspace have room for.
int multiply(const Device& device, int kind, const Product& p, Scratch scratch, void* stream) {
    const auto launch = [&](auto variant) { return launch_multiply<decltype(variant)>(device, p, scratch, stream); };
    const int columns = p.rows * p.parts;
    int error = PARLOR_ERROR_MEMORY;
    if (columns > 16) error = with_variant<4>(kind, p.w, launch);
    if (columns > 8 && error == PARLOR_ERROR_MEMORY) error = with_variant<2>(kind, p.w, launch);
    return error == PARLOR_ERROR_MEMORY ? with_variant<1>(kind, p.w, launch) : error;
}

int linear_quantized(const Device& device, const linear_weight& weight, const Activations& a, int64_t m, float* out,
                     int64_t out_stride, int epilogue, const Heads* heads, void* stream) {
    const Workspace workspace = Workspace::of(stream);
    Scratch scratch = workspace.scratch();
    Product p{};
    p.w = weight_of(weight);
    p.a = a;
    p.parts = weight.exact ? 2 : 1;
    p.tickets = workspace.tickets();
    p.pairs = static_cast<int>(divide_up(p.w.tiles, kTilesOfBlock));
    p.epilogue = epilogue;
    p.out_stride = out_stride;
    if (heads) {
        p.heads = *heads;
        while ((2 * kTile << p.pair_bits) < heads->cache.head_dim) ++p.pair_bits;
    }
    const int64_t most = std::min<int64_t>(m, kMaxRows);
    float* const factors = scratch.take<float>(most);
    half* const staged = scratch.take<half>(most * p.parts * weight.padded_k);
    if (!factors || !staged) return PARLOR_ERROR_MEMORY;
    // Gate and up are tiles of one block, so their border must be a border of tiles.
    const bool is_uneven = epilogue == PARLOR_EPILOGUE_SILU_MUL && weight.n / 2 % kTile != 0;
    float* const product = is_uneven ? scratch.take<float>(most * weight.n) : nullptr;
    if (is_uneven) {
        if (!product) return PARLOR_ERROR_MEMORY;
        p.epilogue = PARLOR_EPILOGUE_STORE;
        p.out_stride = weight.n;
    }
    for (int64_t first = 0; first < m; first += kMaxRows) {
        p.rows = static_cast<int>(std::min<int64_t>(m - first, kMaxRows));
        p.a.x = a.x + first * a.stride;
        if (heads) p.heads.positions = heads->positions + first, p.heads.slots = heads->slots + first;
        p.out = is_uneven ? product : out + first * out_stride;
        p.staged = p.rows > kRowsConvertedByBlock ? staged : nullptr;
        p.factors = factors;
        if (p.staged) {
            const int error = launch(device, stage_kernel, dim3(static_cast<unsigned>(p.rows)), dim3(kThreads), 0, stream,
                                     p.w, p.a, p.parts, staged, factors);
            if (error) return error;
        }
        int error = multiply(device, weight.kind, p, scratch, stream);
        if (!error && is_uneven) {
            error = launch_finish(device, p.out, nullptr, nullptr, weight.n, out + first * out_stride, out_stride, p.rows,
                                  epilogue, stream);
        }
        if (error) return error;
    }
    return PARLOR_OK;
}

}  // namespace

int linear_quantized(const Device& device, const linear_weight& weight, const Activations& a, int64_t m, float* out,
                     int64_t out_stride, int epilogue, void* stream) {
    return linear_quantized(device, weight, a, m, out, out_stride, epilogue, nullptr, stream);
}

}  // namespace parlor

using namespace parlor;

extern "C" int linear_rope_write_kv(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                                    const linear_weight* weight, float* out, int64_t out_stride, const float* cos_table,
                                    const float* sin_table, int64_t max_positions, const int32_t* positions,
                                    const int64_t* slot_mapping, void* k_cache, void* v_cache, int64_t num_pages,
                                    int64_t page_size, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                    int is_interleaved, void* stream) {
    if (const int error = check_weight(weight)) return error;
    if (!is_quantized(*weight)) return PARLOR_ERROR_DTYPE;
    if (const int error = check_cache(k_cache, v_cache, PARLOR_F16, num_pages, page_size, num_kv_heads, head_dim)) return error;
    const int64_t kept = num_kv_heads * head_dim;
    if (m < 0 || x_stride < weight->k || out_stride < num_heads * head_dim || max_positions < 1 || num_heads < 1 ||
        weight->n != num_heads * head_dim + 2 * kept || (head_dim != 32 && head_dim != 64 && head_dim != 128 && head_dim != 256) ||
        num_pages > kMaxGridX / page_size)
        return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (!x || !out || !v_cache || !cos_table || !sin_table || !positions || !slot_mapping || !is_aligned(x, 4) ||
        !is_aligned(out, 4) || !is_aligned(norm_weight, 4) || !is_aligned(positions, 4) || !is_aligned(slot_mapping, 8))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    const Heads heads{cos_table, sin_table, max_positions, positions, slot_mapping, static_cast<int>(num_heads),
                      is_interleaved != 0,
                      {k_cache, v_cache, num_pages, page_size, num_kv_heads, head_dim,
                       cache_block_bytes(PARLOR_F16, page_size, head_dim)}};
    return linear_quantized(device, *weight, {x, x_stride, norm_weight, eps}, m, out, out_stride, kHeadsEpilogue, &heads,
                            stream);
}

extern "C" int linear_stage(const float* x, int64_t x_stride, int64_t m, const float* norm_weight, float eps,
                            const linear_weight* weight, uint16_t* staged, float* factors, void* stream) {
    if (const int error = check_weight(weight)) return error;
    if (m < 0 || m > kMaxGridX || x_stride < weight->k) return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (!x || !staged || !factors || !is_aligned(x, 4) || !is_aligned(staged, 4) || !is_aligned(factors, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, stage_kernel, dim3(static_cast<unsigned>(m)), dim3(kThreads), 0, stream, weight_of(*weight),
                  Activations{x, x_stride, norm_weight, eps}, 1, reinterpret_cast<half*>(staged), factors);
}

extern "C" int linear_finish(const float* product, const float* factors, int64_t m, const linear_weight* weight, float* out,
                             int64_t out_stride, int epilogue, void* stream) {
    if (const int error = check_weight(weight)) return error;
    const bool is_silu = epilogue == PARLOR_EPILOGUE_SILU_MUL;
    if (m < 0 || (is_silu && weight->n % 2 != 0) || out_stride < (is_silu ? weight->n / 2 : weight->n))
        return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (epilogue < PARLOR_EPILOGUE_STORE || epilogue > PARLOR_EPILOGUE_GATE) return PARLOR_ERROR_VALUE;
    if (!product || !out) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch_finish(device, product, factors, weight->bias, weight->n, out, out_stride, m,
                         epilogue, stream);
}
