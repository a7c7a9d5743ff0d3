// A mixture of experts for rows that decode: the chosen experts are looked up here, so that nobody waits to hear of them.
//
// Bound by reading the weights of the chosen experts. A block multiplies one row by tiles of one of its experts, as
// linear() does by those of a weight (multiply.cuh); rows that chose the same expert read it again, out of the cache. What
// the experts give lies beside each other; then each row takes its own in the order they were chosen in, so that its
// sum depends on no other row.
// Reference: experts() in model/kernels/reference/experts.py.
#include "multiply.cuh"

namespace parlor {
namespace {

constexpr int kDenseThreads = 256;
constexpr int kDenseWarps = kDenseThreads / 32;
constexpr int kMaxExperts = 4096, kMaxChosen = 64;
constexpr int kMaxPairs = 32768;   // of a row and an expert, in one pass
constexpr int kMaxClasses = 11;    // of weights: four variants of each size, three dense

enum { kGateUp, kUp, kDown, kRoles };

// One weight of an expert, as the table has it.
struct Entry {
    Weight w;
    int kind, is_there;  // PARLOR_LINEAR_*
};

// Which weights a launch is for: others are left to another one.
struct Class {
    int kind, zero_kind, shares, parts;  // of quantized ones: PARLOR_ZERO_*, whether scales are shared
};

__host__ __device__ inline bool is_of(const Class& c, const Entry& entry) {
    return entry.is_there && entry.kind == c.kind &&
           (c.kind > PARLOR_LINEAR_Q8 || (entry.w.zero_kind == c.zero_kind && shares_scales(entry.w) == (c.shares != 0)));
}

struct Lookup {
    const Entry* table;     // [num_experts][kRoles]
    const int32_t* chosen;  // [pairs]
    const float* shares;    // [pairs], what rows of x are multiplied by; or null
    int num_experts, role;
    Class wanted;
    int rows_per_x;         // pairs that share a row of x
    int64_t x_stride, out_stride;

    // The weight of a pair's expert, null if this launch is not for it.
    __device__ const Entry* entry(int64_t pair) const {
        const int32_t expert = chosen[pair];
        if (expert < 0 || expert >= num_experts) return nullptr;
        const Entry* const found = table + int64_t{expert} * kRoles + role;
        return is_of(wanted, *found) ? found : nullptr;
    }
};

// Grid: blocks that take pairs of tiles by turns, splits, pairs of a row and an expert.
template <class V>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce) expert_kernel(const Product common, const Lookup look) {
    wait_for_previous_kernel();  // the choice
    const int64_t pair = blockIdx.z;
    const Entry* const entry = look.entry(pair);
    if (!entry) {
        let_next_kernel_start();
        return;
    }
    Product p = common;
    p.w = entry->w;
    p.a.x += pair / look.rows_per_x * look.x_stride;
    p.out += pair * look.out_stride;
    if (look.shares) p.row_factors = look.shares + pair;
    multiply_tiles<V>(p, blockIdx.z, 0);
}

template <int kKind>
__device__ __forceinline__ float dense_value(const void* values, int64_t i) {
    if (kKind == PARLOR_LINEAR_F32) return static_cast<const float*>(values)[i];
    const uint16_t bits = static_cast<const uint16_t*>(values)[i];
    return kKind == PARLOR_LINEAR_BF16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16)
                                       : __half2float(__ushort_as_half(bits));
}

// A warp has an output. Grid: outputs, pairs of a row and an expert.
template <int kKind>
__global__ void __launch_bounds__(kDenseThreads) dense_expert_kernel(const Product common, const Lookup look) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t pair = blockIdx.y, n = int64_t{blockIdx.x} * kDenseWarps + threadIdx.x / 32;
    const Entry* const entry = look.entry(pair);
    if (!entry || n >= entry->w.n) return;
    const Weight& w = entry->w;
    const float* const x = common.a.x + pair / look.rows_per_x * look.x_stride;
    float sum = 0.0f;
    for (int64_t i = threadIdx.x % 32; i < w.k; i += 32) sum += dense_value<kKind>(w.codes, n * w.k + i) * x[i];
    sum = warp_sum(sum) * (look.shares ? look.shares[pair] : 1.0f) + (w.bias ? w.bias[n] : 0.0f);
    if (threadIdx.x % 32 == 0) finish(common.out + pair * look.out_stride + n, common.epilogue, sum, 0.0f);
}

struct Combine {
    const float* given;     // [rows, top_k, size]
    const int32_t* chosen;  // [rows, top_k]
    const float* shares;    // [rows, top_k] or null
    const float* gate;      // [rows] or null
    float* out;
    int64_t out_stride, size;
    int top_k, num_experts;
    bool add;
};

// Grid: rows, parts of a row.
__global__ void __launch_bounds__(kDenseThreads) combine_kernel(const Combine c) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t row = blockIdx.x;
    const float factor = c.gate ? 1.0f / (1.0f + expf(-c.gate[row])) : 1.0f;
    for (int64_t i = int64_t{blockIdx.y} * kDenseThreads + threadIdx.x; i < c.size; i += int64_t{gridDim.y} * kDenseThreads) {
        float* const out = c.out + row * c.out_stride + i;
        float sum = c.add || c.gate ? *out * factor : 0.0f;
        for (int j = 0; j < c.top_k; ++j) {
            const int64_t pair = row * c.top_k + j;
            const int32_t expert = c.chosen[pair];
            const bool is_known = expert >= 0 && expert < c.num_experts;
            sum += is_known ? c.given[pair * c.size + i] * (c.shares ? c.shares[pair] : 1.0f) : NAN;
        }
        *out = sum;
    }
}

// The classes of the weights in one role, without repetition, and the largest of them.
struct Classes {
    Class found[kMaxClasses];
    linear_weight largest[kMaxClasses];  // the most of each size
    int count = 0;

    bool add(const linear_weight& w) {
        const Class own = is_quantized(w) ? Class{w.kind, w.zero_kind, shares_scales(weight_of(w)), w.exact ? 2 : 1}
                                          : Class{w.kind, PARLOR_ZERO_ONE, 0, 1};
        int i = 0;
        const auto is_other = [&](const Class& c) {
            return c.kind != own.kind || c.zero_kind != own.zero_kind || c.shares != own.shares;
        };
        while (i < count && is_other(found[i])) ++i;
        if (i == count) {
            if (count == kMaxClasses) return false;
            found[count] = own;
            largest[count++] = w;
        }
        if (found[i].parts != own.parts) return false;
        largest[i].num_blocks = std::max(largest[i].num_blocks, w.num_blocks);
        largest[i].num_spans = std::max(largest[i].num_spans, w.num_spans);
        largest[i].padded_k = std::max(largest[i].padded_k, w.padded_k);
        largest[i].n = std::max(largest[i].n, w.n);
        return true;
    }
};

// y = x @ weight^T + bias of the chosen experts' weights in one role.
struct Call {
    const Device& device;
    const expert_weights& experts;
    const linear_weight* const* weights;
    Product p;
    Lookup look;
    int64_t pairs;
    Scratch scratch;
    void* stream;

    int run() {
        Classes classes;
        for (int64_t e = 0; e < experts.num_experts; ++e)
            if (weights[e] && !classes.add(*weights[e])) return PARLOR_ERROR_VALUE;
        for (int i = 0; i < classes.count; ++i)
            if (const int error = launch_class(classes.found[i], classes.largest[i])) return error;
        return PARLOR_OK;
    }

    int launch_class(const Class& c, const linear_weight& largest) {
        look.wanted = c;
        switch (c.kind) {
            case PARLOR_LINEAR_Q4:
            case PARLOR_LINEAR_Q8:
                return with_variant<1>(c.kind, weight_of(largest), [&](auto variant) {
                    return quantized<decltype(variant)>(c, largest);
                });
            case PARLOR_LINEAR_F16: return dense<PARLOR_LINEAR_F16>(largest);
            case PARLOR_LINEAR_BF16: return dense<PARLOR_LINEAR_BF16>(largest);
            case PARLOR_LINEAR_F32: return dense<PARLOR_LINEAR_F32>(largest);
            default: return PARLOR_ERROR_DTYPE;
        }
    }

    template <class V>
    int quantized(const Class& c, const linear_weight& largest) {
        Product product = p;
        Scratch own = scratch;
        product.w = weight_of(largest);
        product.parts = c.parts;
        product.pairs = static_cast<int>(divide_up(product.w.tiles, kTilesOfBlock));
        const int64_t shared = share_out<V>(device, &product, 1);
        if (!shared) return PARLOR_ERROR_MEMORY;
        if (const int error = take_partials<V>(&product, pairs, &own)) return error;
        bound_prefetches<V>(device, product.pairs * product.splits * pairs, &product);
        const dim3 grid(static_cast<unsigned>(product.pairs), static_cast<unsigned>(product.splits),
                        static_cast<unsigned>(pairs));
        return launch(device, expert_kernel<V>, grid, dim3(kThreads), static_cast<size_t>(shared), stream,
                      product, look);
    }

    template <int kKind>
    int dense(const linear_weight& largest) {
        const dim3 grid(static_cast<unsigned>(divide_up(largest.n, kDenseWarps)), static_cast<unsigned>(pairs));
        return launch(device, dense_expert_kernel<kKind>, grid, dim3(kDenseThreads), 0, stream, p, look);
    }
};

struct Mixture {
    const float* x;
    int64_t x_stride;
    const int32_t* chosen;
    const float* shares;
    int64_t top_k;
    const expert_weights& experts;
    const float* gate;
    bool add;
    float* out;
    int64_t out_stride;
    void* stream;

    int64_t up_size() const { return experts.intermediate_size * (experts.is_gated ? 2 : 1); }

    // gate and up are tiles of one block.
    bool is_fused() const {
        bool together = experts.is_gated && experts.activation == PARLOR_ACTIVATION_SILU &&
                        experts.intermediate_size % kTile == 0;
        for (int64_t e = 0; e < experts.num_experts; ++e)
            together = together && !experts.up[e] && is_quantized(*experts.gate_up[e]);
        return together;
    }

    int compute(const Device& device, int64_t rows) const {
        const Workspace workspace = Workspace::of(stream);
        Scratch scratch = workspace.scratch();
        const int64_t pairs = rows * top_k, size = experts.hidden_size, width = experts.intermediate_size;
        const bool fused = is_fused();
        float* const inner = scratch.take<float>(pairs * width);
        float* const wide = fused ? inner : scratch.take<float>(pairs * up_size());
        float* const given = scratch.take<float>(pairs * size);
        if (!inner || !wide || !given) return PARLOR_ERROR_MEMORY;
        Product p{};
        p.rows = 1;
        p.tickets = workspace.tickets();
        p.a = {x, x_stride, nullptr, 0.0f};
        p.out = wide;
        p.epilogue = fused ? PARLOR_EPILOGUE_SILU_MUL : PARLOR_EPILOGUE_STORE;
        Lookup look{static_cast<const Entry*>(experts.table), chosen, experts.scales_input ? shares : nullptr,
                    static_cast<int>(experts.num_experts), kGateUp, {}, static_cast<int>(top_k), x_stride,
                    fused ? width : up_size()};
        if (const int error = Call{device, experts, experts.gate_up, p, look, pairs, scratch, stream}.run()) return error;
        look.role = kUp;
        p.out = wide + width;
        if (const int error = Call{device, experts, experts.up, p, look, pairs, scratch, stream}.run()) return error;
        if (!fused) {
            const int error = activate(wide, up_size(), inner, width, experts.activation, experts.is_gated, pairs, width, stream);
            if (error) return error;
        }
        look = {look.table, chosen, nullptr, look.num_experts, kDown, {}, 1, width, size};
        p.a = {inner, width, nullptr, 0.0f};
        p.out = given;
        p.epilogue = PARLOR_EPILOGUE_STORE;
        if (const int error = Call{device, experts, experts.down, p, look, pairs, scratch, stream}.run()) return error;
        const Combine c{given, chosen, experts.scales_input ? nullptr : shares, gate, out, out_stride, size,
                        static_cast<int>(top_k), static_cast<int>(experts.num_experts), add};
        const dim3 grid(static_cast<unsigned>(rows),
                        static_cast<unsigned>(std::min<int64_t>(divide_up(size, kDenseThreads), 64)));
        return launch(device, combine_kernel, grid, dim3(kDenseThreads), 0, stream, c);
    }

    // As many rows at a time as the workspace has room for, half of it being left to the partial sums.
    int run(const Device& device, int64_t m) {
        const int64_t floats = top_k * (experts.hidden_size + experts.intermediate_size + up_size());
        const int64_t room = Workspace::of(stream).bytes / 2 / static_cast<int64_t>(sizeof(float));
        const int64_t most = std::clamp<int64_t>(std::min(room / floats, kMaxPairs / top_k), 1, m);
        for (int64_t row = 0; row < m; row += most) {
            Mixture part = *this;
            part.x += row * x_stride;
            part.chosen += row * top_k;
            part.shares += row * top_k;
            part.gate += gate ? row : 0;
            part.out += row * out_stride;
            if (const int error = part.compute(device, std::min(most, m - row))) return error;
        }
        return PARLOR_OK;
    }
};

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int expert_table(const expert_weights* weights, void* table, int64_t* nbytes) {
    if (!weights || !nbytes || !weights->gate_up || !weights->up || !weights->down) return PARLOR_ERROR_POINTER;
    if (weights->num_experts < 1 || weights->num_experts > kMaxExperts) return PARLOR_ERROR_SIZE;
    *nbytes = weights->num_experts * kRoles * static_cast<int64_t>(sizeof(Entry));
    Entry* const entries = static_cast<Entry*>(table);
    for (int64_t e = 0; table && e < weights->num_experts; ++e) {
        const linear_weight* const own[kRoles] = {weights->gate_up[e], weights->up[e], weights->down[e]};
        for (int role = 0; role < kRoles; ++role)
            entries[e * kRoles + role] = own[role] ? Entry{weight_of(*own[role]), own[role]->kind, 1} : Entry{};
    }
    return PARLOR_OK;
}

extern "C" int experts(const float* x, int64_t x_stride, int64_t m, const int32_t* chosen, const float* shares,
                       int64_t top_k, const expert_weights* weights, const float* gate, int add, float* out,
                       int64_t out_stride, void* stream) {
    if (!weights || !weights->gate_up || !weights->up || !weights->down || !weights->table) return PARLOR_ERROR_POINTER;
    if (m < 0 || top_k < 1 || top_k > kMaxChosen || weights->num_experts < 1 || weights->num_experts > kMaxExperts ||
        x_stride < weights->hidden_size || out_stride < weights->hidden_size || weights->intermediate_size < 1)
        return PARLOR_ERROR_SIZE;
    if (m == 0) return PARLOR_OK;
    if (!x || !chosen || !shares || !out || !is_aligned(x, 4) || !is_aligned(out, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return Mixture{x, x_stride, chosen, shares, top_k, *weights, gate, add != 0, out, out_stride, stream}.run(device, m);
}
