// Recurrences whose state is a matrix for each head: the gated delta rule, and Mamba 2.
//
// One row is bound by reading and writing the state (32 heads of 128 x 128: 2 MB each way). A prompt is bound by
// products: the state's columns stay in L1 (tile.h), and a number of it costs four operations a row with the delta
// rule, three with Mamba (32 heads of 128 x 128 with AVX-512: 65,000 cycles a row).
//
// An item is a head of a sequence. All columns of a state are computed alone and rows one after the other, so neither
// chunks nor the batch nor the number of threads change a bit.
//
// Not by products of matrices, chunk by chunk (the delta rule's UT transform, Mamba's SSD form), though these have 3.5
// operations instead of 4, and 2.2 instead of 3: a trial's best chunks, of 16 or 32 rows, took 0.98 (AVX-512) and 1.2 times
// (AVX2) as long with the delta rule, 0.8 to 1.4 times with Mamba 2 (Zen 4), and a row's bits would depend on where its
// chunk begins, which snapshots may cut anywhere.
// Reference: gated_delta() and mamba2() in model/kernels/reference/states.py.
#include <cmath>

#include "state.h"
#include "thread_team.h"
#include "tile.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

// ---- the gated delta rule -------------------------------------------------------------------------------------

// Of a row's query and key of one key head: what makes them unit vectors (and the query's 1 / sqrt(dim)), and their
// product then.
struct Factors {
    float query, key, product;
};

Factors factors_of(const float* q, const float* k, int64_t dim) {
    Vec qq = zero(), kk = zero(), qk = zero();
    const auto add = [&](Vec a, Vec b) { qq = fma(a, a, qq), kk = fma(b, b, kk), qk = fma(a, b, qk); };
    for_lanes(dim, [&](int64_t i) { add(load(q + i), load(k + i)); },
              [&](int64_t i, int64_t n) { add(load_n(q + i, n), load_n(k + i, n)); });
    constexpr float kEps = 1e-6f;
    const float query = 1.0f / (std::sqrt(sum(qq) + kEps) * std::sqrt(static_cast<float>(dim)));
    const float key = 1.0f / std::sqrt(sum(kk) + kEps);
    return {query, key, sum(qk) * query * key};
}

// What all tiles of a step need, computed once.
struct DeltaRows {
    const Factors* factors;  // [T, num_key_heads]
    const float* decays;     // [T, num_heads, decay_dim]
};

// A tile of one head's state S. With u = S^T k of the state before a row, decayed, the row adds k (x) w, where
// w = beta * (v - u), and its result is S^T q + (q . k) * w of that same state: so the state is read once a row, for
// both products, while the row before is added to it.
template <int kVectors>
class DeltaTile {
  public:
    DeltaTile(const DeltaArgs& a, const DeltaRows& rows, int64_t s, int64_t head, Tile<kVectors>& tile, int64_t column)
        : a_(a), rows_(rows), s_(s), head_(head), key_head_(a.key_head(head)),
          decay_step_(a.decay_dim > 1), tile_(tile), column_(column) {}

    void run() {
        const Sequences& of = a_.sequences;
        const int64_t begin = of.first_row(s_), end = of.last_row(s_);
        if (begin == end) return;
        if (of.begins(s_)) tile_.clear();
        else tile_.read(part(of.state(s_)), a_.value_dim);
        Vec along_key[kVectors], along_query[kVectors], written[kVectors];
        decay_and_multiply(begin, along_key, along_query);
        for (int64_t t = begin; t + 1 < end; ++t) {
            finish(t, along_key, along_query, written);
            if (float* const kept = of.kept_state(t)) {
                add(t, written);
                tile_.write(part(kept), a_.value_dim);
                decay_and_multiply(t + 1, along_key, along_query);
            } else {
                add_decay_and_multiply(t, written, along_key, along_query);
            }
        }
        finish(end - 1, along_key, along_query, written);
        add(end - 1, written);
        if (float* const kept = of.kept_state(end - 1)) tile_.write(part(kept), a_.value_dim);
        tile_.write(part(of.state(s_)), a_.value_dim);
    }

  private:
    float* part(float* state) const { return state + head_ * a_.key_dim * a_.value_dim + column_; }
    const float* query(int64_t t) const { return a_.q + t * a_.q_stride + key_head_ * a_.key_dim; }
    const float* key(int64_t t) const { return a_.k + t * a_.k_stride + key_head_ * a_.key_dim; }

    // The same number for all rows of the state where decay_step_ is 0.
    const float* decay(int64_t t) const { return rows_.decays + (t * a_.num_heads + head_) * a_.decay_dim; }

    // The state as row t finds it, and its products with the row's key and query, as they are in memory.
    void decay_and_multiply(int64_t t, Vec (&along_key)[kVectors], Vec (&along_query)[kVectors]) {
        const float *const q = query(t), *const k = key(t), *const decays = decay(t);
        for (int v = 0; v < kVectors; ++v) along_key[v] = along_query[v] = zero();
        for (int64_t i = 0; i < a_.key_dim; ++i) {
            float* const row = tile_.row(i);
            for (int v = 0; v < kVectors; ++v) {
                const Vec value = set1(decays[i * decay_step_]) * load(row + v * kLanes);
                store(row + v * kLanes, value);
                along_key[v] = fma(set1(k[i]), value, along_key[v]);
                along_query[v] = fma(set1(q[i]), value, along_query[v]);
            }
        }
    }

    // Row t's result, and what is to be added along its key as it is in memory.
    void finish(int64_t t, const Vec (&along_key)[kVectors], const Vec (&along_query)[kVectors],
                Vec (&written)[kVectors]) const {
        const Factors& f = rows_.factors[t * a_.num_key_heads + key_head_];
        const Vec beta = set1(a_.beta[t * a_.beta_stride + head_]);
        const int64_t offset = head_ * a_.value_dim + column_;
        Vec values[kVectors], results[kVectors];
        tile_.load_columns(a_.v + t * a_.v_stride + offset, values);
        for (int v = 0; v < kVectors; ++v) {
            const Vec wrong = beta * fma(set1(-f.key), along_key[v], values[v]);
            results[v] = fma(set1(f.query), along_query[v], set1(f.product) * wrong);
            written[v] = set1(f.key) * wrong;
        }
        tile_.store_columns(a_.out + t * a_.out_stride + offset, results);
    }

    void add(int64_t t, const Vec (&written)[kVectors]) {
        const float* const k = key(t);
        for (int64_t i = 0; i < a_.key_dim; ++i) {
            float* const row = tile_.row(i);
            for (int v = 0; v < kVectors; ++v)
                store(row + v * kLanes, fma(set1(k[i]), written[v], load(row + v * kLanes)));
        }
    }

    // add(t), then decay_and_multiply(t + 1), at once.
    void add_decay_and_multiply(int64_t t, const Vec (&written)[kVectors], Vec (&along_key)[kVectors],
                                Vec (&along_query)[kVectors]) {
        const float *const k = key(t), *const next_q = query(t + 1), *const next_k = key(t + 1);
        const float* const decays = decay(t + 1);
        for (int v = 0; v < kVectors; ++v) along_key[v] = along_query[v] = zero();
        for (int64_t i = 0; i < a_.key_dim; ++i) {
            float* const row = tile_.row(i);
            for (int v = 0; v < kVectors; ++v) {
                const Vec sum = fma(set1(k[i]), written[v], load(row + v * kLanes));
                const Vec value = set1(decays[i * decay_step_]) * sum;
                store(row + v * kLanes, value);
                along_key[v] = fma(set1(next_k[i]), value, along_key[v]);
                along_query[v] = fma(set1(next_q[i]), value, along_query[v]);
            }
        }
    }

    const DeltaArgs& a_;
    const DeltaRows& rows_;
    const int64_t s_, head_, key_head_, decay_step_;
    Tile<kVectors>& tile_;
    const int64_t column_;
};

// ---- Mamba 2 --------------------------------------------------------------------------------------------------

template <int kVectors>
void scan(const MambaArgs& a, int64_t s, int64_t head, Tile<kVectors>& tile, int64_t column) {
    const Sequences& of = a.sequences;
    const int64_t begin = of.first_row(s), end = of.last_row(s), offset = head * a.head_dim + column;
    const int64_t group = head / (a.num_heads / a.num_groups) * a.state_size;
    const auto part = [&](float* state) { return state + head * a.state_size * a.head_dim + column; };
    if (begin == end) return;
    if (of.begins(s)) tile.clear();
    else tile.read(part(of.state(s)), a.head_dim);
    const Vec direct = set1(a.d ? a.d[head] : 0.0f);
    for (int64_t t = begin; t < end; ++t) {
        const float dt = a.dt[t * a.dt_stride + head];
        const Vec decay = set1(std::exp(dt * a.a[head]));
        const float *const b = a.b + t * a.b_stride + group, *const c = a.c + t * a.c_stride + group;
        Vec inputs[kVectors], steps[kVectors], results[kVectors];
        tile.load_columns(a.x + t * a.x_stride + offset, inputs);
        for (int v = 0; v < kVectors; ++v) steps[v] = set1(dt) * inputs[v], results[v] = zero();
        for (int64_t i = 0; i < a.state_size; ++i) {
            float* const row = tile.row(i);
            for (int v = 0; v < kVectors; ++v) {
                const Vec value = fma(set1(b[i]), steps[v], decay * load(row + v * kLanes));
                store(row + v * kLanes, value);
                results[v] = fma(set1(c[i]), value, results[v]);
            }
        }
        for (int v = 0; v < kVectors; ++v) results[v] = fma(direct, inputs[v], results[v]);
        tile.store_columns(a.out + t * a.out_stride + offset, results);
        if (float* const kept = of.kept_state(t)) tile.write(part(kept), a.head_dim);
    }
    tile.write(part(of.state(s)), a.head_dim);
}

// visit(sequence, head) for all heads, shared among the threads.
template <class Visit>
void for_each_head(const Sequences& sequences, int64_t num_heads, Visit visit) {
    team().parallel_for(sequences.count * num_heads, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            if (!sequences.is_padding(i / num_heads)) visit(i / num_heads, i % num_heads);
    });
}

}  // namespace

int delta_rule(const DeltaArgs& a) {
    constexpr int64_t kRowsPerShare = 64;  // of all heads: less is not worth another thread
    const int64_t pairs = a.num_rows * a.num_key_heads, decaying = a.num_rows * a.num_heads;
    const auto count = static_cast<size_t>(pairs), floats = static_cast<size_t>(decaying * a.decay_dim);
    auto* const factors =
        static_cast<Factors*>(team().scratch(count * sizeof(Factors) + floats * sizeof(float)));
    if (!factors) return PARLOR_ERROR_MEMORY;
    auto* const decays = reinterpret_cast<float*>(factors + pairs);
    team().parallel_for(pairs, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t t = i / a.num_key_heads, offset = i % a.num_key_heads * a.key_dim;
            factors[i] = factors_of(a.q + t * a.q_stride + offset, a.k + t * a.k_stride + offset, a.key_dim);
        }
    }, kRowsPerShare);
    team().parallel_for(decaying, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t t = i / a.num_heads, head = i % a.num_heads;
            const float* const from = a.log_decay + t * a.log_decay_stride + head * a.decay_dim;
            float* const to = decays + i * a.decay_dim;
            for_lanes(a.decay_dim, [&](int64_t j) { store(to + j, exp_or_zero(load(from + j))); },
                      [&](int64_t j, int64_t n) { store_n(to + j, exp_or_zero(load_n(from + j, n)), n); });
        }
    }, kRowsPerShare);
    const DeltaRows rows{factors, decays};
    for_each_head(a.sequences, a.num_heads, [&](int64_t s, int64_t head) {
        for_each_tile(a.key_dim, a.value_dim, [&](auto&& tile, int64_t column) {
            DeltaTile(a, rows, s, head, tile, column).run();
        });
    });
    return PARLOR_OK;
}

void scan_mamba(const MambaArgs& a) {
    for_each_head(a.sequences, a.num_heads, [&](int64_t s, int64_t head) {
        for_each_tile(a.state_size, a.head_dim,
                      [&](auto&& tile, int64_t column) { scan(a, s, head, tile, column); });
    });
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
