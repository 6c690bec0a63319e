#include "core/synapse_check.h"

#include <cstdint>
#include <string>
#include <vector>

#include "support/check.h"

namespace {

std::string error(const std::vector<int32_t>& list, int64_t neurons, int64_t rows) {
  return fastltc::synapse_list_error(list.data(), static_cast<int64_t>(list.size()), neurons, rows);
}

bool says(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST(lists_that_can_be_followed) {
  CHECK(error({0, 2, 2, 3, 0, 4, 1}, 3, 5).empty());
  CHECK(error({0}, 0, 0).empty());
  CHECK(error({0, 0}, 1, 0).empty());
}

TEST(lists_that_cannot) {
  CHECK(says(error({0, 1}, 2, 2), "at least 3"));
  CHECK(says(error({3, 1, 1, 0}, 2, 2), "first column pointer to be 0, got 3"));
  CHECK(says(error({0, 1, 3, 0, 1}, 2, 2), "number of synapses, 2, got 3"));
  CHECK(says(error({0, 2, 1, 0}, 2, 2), "ascending column pointers, got 2 then 1 at neuron 1"));
  CHECK(says(error({0, -5, 1, 0}, 2, 2), "ascending column pointers"));
  CHECK(says(error({0, 9, 1, 0}, 2, 2), "ascending column pointers"));
  CHECK(says(error({0, 1, 2}, 1, 2), "number of synapses, 1, got 1") == false);
  CHECK(says(error({0, 1, 2}, 1, 2), "[0, 2), got 2"));
  CHECK(says(error({0, 1, -1}, 1, 2), "got -1"));
  CHECK(says(error({0, 2, 1, 1}, 1, 2), "ascending presynaptic"));
  CHECK(says(error({0, 2, 1, 0}, 1, 2), "for each neuron, got 1 then 0 at neuron 0"));
  CHECK(says(error({0, 0, 1, 7}, 2, 2), "[0, 2), got 7 at neuron 1"));
  CHECK(says(error({0, 2, 3, 0, 1, 2}, 2, 2), "[0, 2), got 2 at neuron 1"));
}

// Every list of up to four synapses of three neurons, of which two rows are possible.
TEST(all_small_lists) {
  constexpr int64_t neurons = 3, rows = 2;
  int64_t accepted = 0, refused = 0;
  for (int32_t a = 0; a <= 2; ++a) {
    for (int32_t b = a; b <= 3; ++b) {
      for (int32_t count = b; count <= 4; ++count) {
        int64_t lists = 1;
        for (int32_t k = 0; k < count; ++k) lists *= 4;
        for (int64_t number = 0; number < lists; ++number) {
          std::vector<int32_t> list{0, a, b, count};
          for (int64_t k = 0, rest = number; k < count; ++k, rest /= 4) {
            list.push_back(static_cast<int32_t>(rest % 4) - 1);
          }
          bool good = true;
          for (int64_t j = 0; j < neurons; ++j) {
            for (int64_t k = list[j]; k < list[j + 1]; ++k) {
              const int32_t row = list[neurons + 1 + k];
              good = good && row >= 0 && row < rows;
              if (k > list[j]) good = good && row > list[neurons + k];
            }
          }
          CHECK(error(list, neurons, rows).empty() == good);
          (good ? accepted : refused) += 1;
        }
      }
    }
  }
  CHECK(accepted > 20 && refused > 1000);
}

TEST(entries_of_a_mask) {
  const auto problem = [](const std::vector<int32_t>& list) {
    return fastltc::mask_entries_error(list.data(), static_cast<int64_t>(list.size()), 2, 3);
  };
  // Entries (0, 0), (0, 2), (1, 2).
  CHECK(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 1, 0, 1, 2}).empty());
  CHECK(problem({0, 0, 0, 0, 0, 0, 0}).empty());
  CHECK(says(problem({0, 0, 0, 0, 0, 0}), "expected 7 pointers"));
  CHECK(says(problem({0, 0, 0, 0, 0, 0, 0, 1}), "three integers for each"));
  CHECK(says(problem({0, 2, 3, 0, 3, 2, 0, 1, 1, 3, 0, 0, 1, 0, 1, 2}), "[0, 3), got 3"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 2, 0, 1, 2}), "by inputs"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 1, 0, 0, 1, 2}), "by inputs"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 1, 0, 1, 3}),
             "output 1 and input 2 in the order of the outputs, got 3"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 1, -1, 1, 2}), "got -1"));
  // No permutation, a permutation of others, and a second order of another mask.
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 1, 0, 1, 1}), "output 1 and input 2"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 1, 0, 2, 1}), "output 0 and input 2"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 0, 0, 1, 1, 0, 2}), "output 0 and input 0"));
  CHECK(says(problem({0, 2, 3, 0, 2, 2, 0, 1, 1, 3, 1, 0, 1, 0, 1, 2}), "output 1 and input 0"));
}

TEST(counts_of_a_mask) {
  CHECK(fastltc::mask_entries_count_error(7, 2, 3).empty());
  CHECK(fastltc::mask_entries_count_error(16, 2, 3).empty());
  for (const int64_t values : {0, 6, 8, 15, 17}) {
    CHECK(says(fastltc::mask_entries_count_error(values, 2, 3), "expected 7 pointers"));
  }
}
