// Model files read without Python: every file of tests/golden, damaged ones, and JSON that is none.
#include "model/model_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <stdexcept>

#include "model/sha256.h"
#include "support/check.h"

namespace fastltc::test {

using model::ModelFile;
using model::parse_json;
using model::parse_model_file;

namespace {

std::vector<std::string> golden() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(FASTLTC_GOLDEN_MODELS)) {
    paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  return paths;
}

// What is wrong with a content; empty where nothing is.
std::string fault(const std::string& content) {
  try {
    parse_model_file(content);
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

// A file whose header has another text in the place of one of its own.
std::string with(std::string content, const std::string& old, const std::string& text) {
  uint64_t length = 0;
  std::memcpy(&length, content.data(), 8);
  const size_t at = content.find(old);
  if (at == std::string::npos) throw std::logic_error("not there: " + old);
  content.replace(at, old.size(), text);
  length += text.size() - old.size();
  std::memcpy(content.data(), &length, 8);
  return content;
}

// The same with a digest that fits, as a forger would write it.
std::string forged(const std::string& content, const std::string& old, const std::string& text) {
  const std::string changed = with(content, old, text);
  uint64_t length = 0;
  std::memcpy(&length, changed.data(), 8);
  const model::Value header = parse_json(std::string_view(changed).substr(8, length));
  const model::Value& metadata = *header.find("__metadata__");
  const auto& described = *metadata.find("model")->get_if<std::string>();
  std::vector<std::pair<std::string, std::string_view>> tensors;
  for (const model::Member& each : *header.get_if<model::Value::Object>()) {
    if (each.name == "__metadata__") continue;
    const auto& range = *each.value.find("data_offsets")->get_if<model::Value::List>();
    const int64_t begin = *range[0].get_if<int64_t>(), end = *range[1].get_if<int64_t>();
    tensors.emplace_back(each.name,
                         std::string_view(changed).substr(8 + length + begin, end - begin));
  }
  std::ranges::sort(tensors);
  model::Sha256 digest;
  digest.add(described.data(), described.size());
  for (const auto& [name, bytes] : tensors) digest.add(bytes.data(), bytes.size());
  return with(changed, *metadata.find("sha256")->get_if<std::string>(), digest.hexadecimal());
}

void check_fault(const std::string& content, const std::string& wanted) {
  const std::string found = fault(content);
  if (found.find(wanted) == std::string::npos) {
    report_failure(__FILE__, __LINE__, "expected an error with '" + wanted + "', got: " + found);
  }
}

}  // namespace

TEST(digests_of_the_standard) {
  const auto of = [](const std::string& text) {
    model::Sha256 digest;
    for (const char letter : text) digest.add(&letter, 1);
    return digest.hexadecimal();
  };
  CHECK(of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(of(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(every_golden_file_is_read) {
  CHECK(golden().size() > 20);
  for (const std::string& path : golden()) {
    const ModelFile file = parse_model_file(model::read_file(path));
    CHECK(file.time_unit == 60);
    CHECK(file.builder.network().count >= 1);
  }
}

TEST(a_truncated_file_is_refused) {
  const std::string content = model::read_file(FASTLTC_GOLDEN_MODELS "/ltc-one.safetensors");
  for (size_t size = 0; size < content.size(); ++size)
    CHECK(!fault(content.substr(0, size)).empty());
  CHECK(!fault(content + "x").empty());
}

TEST(a_changed_byte_is_refused) {
  std::string content = model::read_file(FASTLTC_GOLDEN_MODELS "/ltc-one.safetensors");
  std::mt19937_64 random(seed());
  // Of the header, those of entries that nobody reads may be anything.
  const size_t header = content.size() - 8 - parse_model_file(content).numbers.size() * 4;
  for (size_t at = 0; at < content.size(); ++at) {
    const char before = content[at];
    content[at] = static_cast<char>(before ^ (1 + random() % 255));
    const std::string found = fault(content);
    CHECK(at < header + 8 || !found.empty());
    content[at] = before;
  }
}

TEST(what_a_file_may_not_say) {
  const std::string content = model::read_file(FASTLTC_GOLDEN_MODELS "/ltc.safetensors");
  check_fault(with(content, "fastltc.model", "fastltc.muddle"), "not a model file");
  check_fault(with(content, "\"format_version\":\"2\"", "\"format_version\":\"4\""),
              "is newer than 3");
  check_fault(with(content, "\"format_version\":\"2\"", "\"format_version\":\"-1\""),
              "format_version: expected a number");
  check_fault(with(content, "\\\"units\\\"", "\\\"unity\\\""), "sha256");
  check_fault(with(content, "\"F32\"", "\"F16\""), "expected dtype F32");
  check_fault(forged(content, "\\\"units\\\"", "\\\"unity\\\""), "units: missing");
  check_fault(
      forged(content, "\\\"mixed_memory\\\": ", "\\\"further\\\": 1, \\\"mixed_memory\\\": "),
      "unknown key 'further'");
  check_fault(forged(content, "\\\"ode_unfolds\\\": ", "\\\"ode_unfolds\\\": 99999"),
              "ode_unfolds");
  check_fault(forged(content, "\\\"epsilon\\\": ", "\\\"epsilon\\\": -1, \\\"epsilom\\\": "),
              "epsilon");
  check_fault(forged(content, "\\\"type\\\": \\\"ltc\\\"", "\\\"type\\\": \\\"gru\\\""), "gru");
  check_fault(forged(content, "\\\"time_unit\\\": 60", "\\\"time_unit\\\": 1e31"), "time_unit");
  check_fault(forged(content, "layers.0.rnn_cell.cm", "layers.0.rnn_cell.mc"), "missing");
}

TEST(json) {
  const model::Value value =
      parse_json(" { \"a\" : [1, -2.5e3, true, null, \"\\u00e9\\ud83d\\ude00\\n\"], \"b\": {} } ");
  const auto& list = *value.find("a")->get_if<model::Value::List>();
  CHECK(*list[0].get_if<int64_t>() == 1);
  CHECK(*list[1].get_if<double>() == -2500);
  CHECK(*list[2].get_if<bool>());
  CHECK(list[3].is_null());
  CHECK(*list[4].get_if<std::string>() == "\xc3\xa9\xf0\x9f\x98\x80\n");
  CHECK(value.shown() == "{'a': [1, -2500, True, None, '\xc3\xa9\xf0\x9f\x98\x80\n'], 'b': {}}");
  for (const std::string text : {"",
                                 "{",
                                 "[1,]",
                                 "{\"a\":1,}",
                                 "{\"a\":1,\"a\":2}",
                                 "01",
                                 "-",
                                 "1.",
                                 "1e",
                                 "nan",
                                 "\"",
                                 "\"\\x\"",
                                 "\"\\u12\"",
                                 "\"\\ud800\"",
                                 "[1] 2",
                                 "99999999999999999999",
                                 "1e999",
                                 "\"\n\"",
                                 "+1",
                                 "\"\\u-123\"",
                                 "\"\\"}) {
    try {
      parse_json(text);
      report_failure(__FILE__, __LINE__, "taken for JSON: " + text);
    } catch (const std::invalid_argument&) {
    }
  }
  CHECK(fault(std::string(8, '\0')) != "");
  for (const char open : {'[', '{'}) {
    try {
      parse_json(std::string(1000000, open));
      report_failure(__FILE__, __LINE__, "nesting without end");
    } catch (const std::invalid_argument&) {
    }
  }
}

TEST(what_is_no_file) {
  try {
    model::read_file("/dev/zero");
    report_failure(__FILE__, __LINE__, "a device was read");
  } catch (const std::invalid_argument&) {
  }
  try {
    model::read_file("/no/such/file");
    report_failure(__FILE__, __LINE__, "what is not there was read");
  } catch (const std::system_error&) {
  }
}

}  // namespace fastltc::test
