// A mixture of experts: each row's chosen ones, and no others, in one call.
//
// Bound by reading the weights of the chosen experts where rows are few: a thread goes through row blocks of one expert
// after the other, as linear() does through those of one weight. Many rows are sorted by expert, each expert has its own
// in one product, and arithmetic bounds it. What the experts give lies beside each other until all are done; then a row
// takes its own in the order they were chosen in, so that its sum depends on no other row. Wide models are
// combined a run of columns after the other, while these are in the cache.
// Reference: experts() in model/kernels/reference/experts.py.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "operations.h"
#include "product.h"
#include "thread_team.h"

namespace parlor {
namespace {

constexpr int64_t kMaxExperts = 4096, kMaxChosen = 64, kMaxRows = int64_t{1} << 24;
constexpr int64_t kRows = 1024;               // at a time
constexpr int64_t kUnit = 8;                  // row blocks that a thread takes at least: the streams are to be long
constexpr int64_t kGivenFloats = 4 << 20;     // of all experts, before they are combined: 16 MiB
constexpr int64_t kLineFloats = 16;

struct Mixture {
    const float* x;  // [rows, hidden_size]
    int64_t x_stride, rows;
    const int32_t* chosen;  // [rows, top_k]
    const float* shares;    // [rows, top_k]
    int64_t top_k;
    const expert_weights& experts;
    const float* gate;
    bool add;
    float* out;
    int64_t out_stride;
    bool of_prompts;

    int64_t pairs() const { return rows * top_k; }  // of a row and an expert

    bool is_fused() const { return experts.is_gated && experts.activation == PARLOR_ACTIVATION_SILU; }

    int64_t up_size() const { return experts.intermediate_size * (experts.is_gated ? 2 : 1); }

    Mixture from(int64_t row, int64_t count) const {
        Mixture part = *this;
        part.x += row * x_stride;
        part.rows = std::min(count, rows - row);
        part.chosen += row * top_k;
        part.shares += row * top_k;
        if (gate) part.gate += row;
        part.out += row * out_stride;
        return part;
    }
};

// Pairs sorted by expert. Those of expert number i that has any are first[i] .. first[i + 1] - 1.
struct Grouping {
    int32_t *source;  // [pairs] row * top_k + its place among the chosen
    int32_t *place;   // [rows, top_k] the pair
    int32_t *expert;  // [experts that have any]
    int32_t *first;
    int64_t count = 0;

    static int64_t ints(const Mixture& m) { return 2 * m.pairs() + 2 * (m.experts.num_experts + 1); }

    Grouping(const Mixture& m, int32_t* memory)
        : source(memory), place(source + m.pairs()), expert(place + m.pairs()), first(expert + m.experts.num_experts + 1) {
        int32_t next[kMaxExperts] = {};
        for (int64_t i = 0; i < m.pairs(); ++i) ++next[m.chosen[i]];
        int32_t begin = 0;
        for (int64_t e = 0; e < m.experts.num_experts; ++e) {
            const int32_t own = next[e];
            next[e] = begin;
            if (own == 0) continue;
            expert[count] = static_cast<int32_t>(e);
            first[count++] = begin;
            begin += own;
        }
        first[count] = begin;
        for (int64_t i = 0; i < m.pairs(); ++i) {
            place[i] = next[m.chosen[i]]++;
            source[place[i]] = static_cast<int32_t>(i);
        }
    }

    int64_t rows(int64_t i) const { return first[i + 1] - first[i]; }
};

// body(i, first row block, last one, part) for all of `blocks` row blocks of each expert, by all threads.
template <class Body>
void by_experts(int64_t count, int64_t blocks, Body body) {
    const int64_t units = (blocks + kUnit - 1) / kUnit;
    Work work(count * units, 1, team().size());
    team().run([&](int part) {
        for (int64_t begin, end; work.take(&begin, &end);) {
            while (begin < end) {
                const int64_t i = begin / units, stop = std::min(end, (i + 1) * units);
                body(i, (begin - i * units) * kUnit, std::min((stop - i * units) * kUnit, blocks), part);
                begin = stop;
            }
        }
    });
}

int64_t whole_lines(int64_t floats) { return (floats + kLineFloats - 1) / kLineFloats * kLineFloats; }

// At most kRows rows, computed within one piece of memory.
class Pass {
  public:
    explicit Pass(const Mixture& m) : m_(m) {}

    int run() {
        const int64_t hidden = m_.experts.hidden_size, inner = m_.experts.intermediate_size;
        const int64_t wide = m_.is_fused() ? 0 : m_.up_size();
        // Runs of whole units, so that they begin where row blocks of the products do.
        const int64_t unit = kUnit * kLanes, wanted = kGivenFloats / m_.pairs() / unit * unit;
        columns_ = std::min(hidden, std::max(wanted, unit));
        const int64_t ints = whole_lines(Grouping::ints(m_)), floats = m_.pairs() * (inner + wide + columns_);
        gathered_floats_ = whole_lines(m_.rows * hidden);
        const bool gathers = m_.rows > 1 || m_.experts.scales_input;
        float* const memory = static_cast<float*>(team().scratch(sizeof(float) * static_cast<size_t>(
            ints + whole_lines(floats) + (gathers ? gathered_floats_ * team().size() : 0))));
        if (!memory) return PARLOR_ERROR_MEMORY;
        const Grouping grouping(m_, reinterpret_cast<int32_t*>(memory));
        inner_ = memory + ints;
        wide_ = inner_ + m_.pairs() * inner;
        given_ = wide_ + m_.pairs() * wide;
        gathered_ = memory + ints + whole_lines(floats);
        expand(grouping);
        if (wide && !error_) activate(wide);
        for (int64_t column = 0; column < hidden && !error_; column += columns_) {
            const int64_t count = std::min(columns_, hidden - column);
            reduce(grouping, column, count);
            combine(grouping, column, count);
        }
        return error_;
    }

  private:
    void note(int error) {
        if (error) error_ = error;
    }

    // The rows of an expert beside each other, times their shares if these are the input's.
    Input input_of(const Grouping& grouping, int64_t i, int part) const {
        const int64_t rows = grouping.rows(i), hidden = m_.experts.hidden_size;
        const int32_t* const source = grouping.source + grouping.first[i];
        if (rows == 1 && !m_.experts.scales_input) return {m_.x + source[0] / m_.top_k * m_.x_stride, hidden, 1, nullptr, 0.0f};
        float* const to = gathered_ + part * gathered_floats_;
        for (int64_t r = 0; r < rows; ++r) {
            const float* const x = m_.x + source[r] / m_.top_k * m_.x_stride;
            std::memcpy(to + r * hidden, x, sizeof(float) * static_cast<size_t>(hidden));
            const float share = m_.experts.scales_input ? m_.shares[source[r]] : 1.0f;
            for (int64_t c = 0; m_.experts.scales_input && c < hidden; ++c) to[r * hidden + c] *= share;
        }
        return {to, hidden, rows, nullptr, 0.0f};
    }

    void expand(const Grouping& grouping) {
        const expert_weights& e = m_.experts;
        const int64_t inner = e.intermediate_size, width = m_.is_fused() ? inner : m_.up_size();
        const int64_t half = (inner + kLanes - 1) / kLanes;  // row blocks of gate or of up
        by_experts(grouping.count, m_.is_fused() || !e.is_gated ? half : 2 * half,
                   [&](int64_t i, int64_t first, int64_t last, int part) {
            const linear_weight *const gate = e.gate_up[grouping.expert[i]], *const up = e.up[grouping.expert[i]];
            float* const out = (m_.is_fused() ? inner_ : wide_) + grouping.first[i] * width;
            const Input input = input_of(grouping, i, part);
            const auto rows_of = [&](const linear_weight* weight, float* to, int epilogue, int64_t from, int64_t to_block) {
                const Product product{weight, input, to, width, epilogue, m_.of_prompts, 0};
                const int64_t end = std::min(to_block, product.row_blocks());
                if (from < end) note(multiply(product, from, end));
            };
            if (m_.is_fused()) {
                rows_of(gate, out, up ? PARLOR_EPILOGUE_STORE : PARLOR_EPILOGUE_SILU_MUL, first, last);
                if (up) rows_of(up, out, PARLOR_EPILOGUE_GATE, first, last);
            } else {
                rows_of(gate, out, PARLOR_EPILOGUE_STORE, first, last);
                if (up) rows_of(up, out + inner, PARLOR_EPILOGUE_STORE, std::max(first - half, int64_t{0}), last - half);
            }
        });
    }

    void activate(int64_t wide) {
        const expert_weights& e = m_.experts;
        PARLOR_PICK(activate_rows)
        ({wide_, wide, e.is_gated ? wide_ + e.intermediate_size : nullptr, wide, inner_, e.intermediate_size, e.activation,
          m_.pairs(), e.intermediate_size});
    }

    void reduce(const Grouping& grouping, int64_t column, int64_t count) {
        const int64_t inner = m_.experts.intermediate_size, first_block = column / kLanes;
        by_experts(grouping.count, (count + kLanes - 1) / kLanes, [&](int64_t i, int64_t first, int64_t last, int) {
            const Input input{inner_ + grouping.first[i] * inner, inner, grouping.rows(i), nullptr, 0.0f};
            float* const out = given_ + grouping.first[i] * columns_ - column;
            note(multiply({m_.experts.down[grouping.expert[i]], input, out, columns_, PARLOR_EPILOGUE_STORE, m_.of_prompts, 0},
                          first_block + first, first_block + last));
        });
    }

    void combine(const Grouping& grouping, int64_t column, int64_t count) {
        PARLOR_PICK(combine_rows)
        ({given_, columns_, grouping.place, m_.experts.scales_input ? nullptr : m_.shares, m_.top_k, m_.gate, m_.add,
          m_.out + column, m_.out_stride, m_.rows, count});
    }

    const Mixture& m_;
    int64_t columns_ = 0, gathered_floats_ = 0;
    float *inner_ = nullptr, *wide_ = nullptr, *given_ = nullptr, *gathered_ = nullptr;
    std::atomic<int> error_{PARLOR_OK};
};

int check(const Mixture& m) {
    const expert_weights& e = m.experts;
    if (m.rows < 0 || m.rows > kMaxRows || m.top_k < 1 || m.top_k > kMaxChosen || e.num_experts < 1 ||
        e.num_experts > kMaxExperts || e.hidden_size < 1 || e.intermediate_size < 1 ||
        (m.rows > 1 && (m.x_stride < e.hidden_size || m.out_stride < e.hidden_size)))
        return PARLOR_ERROR_SIZE;
    if (e.activation < PARLOR_ACTIVATION_SILU || e.activation > PARLOR_ACTIVATION_CLAMPED) return PARLOR_ERROR_VALUE;
    if (!e.gate_up || !e.up || !e.down || (m.rows > 0 && (!m.x || !m.chosen || !m.shares || !m.out))) return PARLOR_ERROR_POINTER;
    for (int64_t i = 0; i < m.pairs(); ++i) {
        const int32_t expert = m.chosen[i];
        if (expert < 0 || expert >= e.num_experts) return PARLOR_ERROR_INDEX;
        const linear_weight *const gate_up = e.gate_up[expert], *const up = e.up[expert], *const down = e.down[expert];
        if (!gate_up || !down) return PARLOR_ERROR_POINTER;
        const int64_t outputs = up ? e.intermediate_size : m.up_size();
        if (gate_up->n != outputs || gate_up->k != e.hidden_size || down->n != e.hidden_size ||
            down->k != e.intermediate_size || (up && (!e.is_gated || up->n != outputs || up->k != e.hidden_size)))
            return PARLOR_ERROR_SIZE;
    }
    return PARLOR_OK;
}

int compute(const Mixture& m) {
    if (const int error = check(m)) return error;
    for (int64_t row = 0; row < m.rows; row += kRows) {
        const Mixture part = m.from(row, kRows);
        if (const int error = Pass(part).run()) return error;
    }
    return PARLOR_OK;
}

}  // namespace
}  // namespace parlor

extern "C" int experts(const float* x, int64_t x_stride, int64_t m, const int32_t* chosen, const float* shares,
                       int64_t top_k, const expert_weights* weights, const float* gate, int add, float* out,
                       int64_t out_stride, void*) {
    if (!weights) return PARLOR_ERROR_POINTER;
    return parlor::compute({x, x_stride, m, chosen, shares, top_k, *weights, gate, add != 0, out, out_stride, false});
}

extern "C" int prompt_experts(const float* x, int64_t x_stride, int64_t m, const int32_t* chosen, const float* shares,
                              int64_t top_k, const expert_weights* weights, const float* gate, int add, float* out,
                              int64_t out_stride, void*) {
    if (!weights) return PARLOR_ERROR_POINTER;
    return parlor::compute({x, x_stride, m, chosen, shares, top_k, *weights, gate, add != 0, out, out_stride, true});
}
