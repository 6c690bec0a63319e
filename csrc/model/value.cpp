#include "model/value.h"

#include <charconv>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace fastltc::model {

namespace {

constexpr int kMostNested = 64;
constexpr size_t kMostShown = 60;

void write(const Value& value, std::string& text) {
  if (text.size() > kMostShown) return;
  if (const auto* const truth = value.get_if<bool>()) text += *truth ? "True" : "False";
  if (const auto* const integer = value.get_if<int64_t>()) text += std::to_string(*integer);
  if (const auto* const number = value.get_if<double>()) {
    char digits[32];
    text.append(digits, std::to_chars(digits, digits + sizeof digits, *number).ptr);
  }
  if (const auto* const words = value.get_if<std::string>()) text += "'" + *words + "'";
  if (value.is_null()) text += "None";
  const char* separator = "";
  if (const auto* const list = value.get_if<Value::List>()) {
    text += '[';
    for (const Value& each : *list) {
      text += separator;
      write(each, text);
      separator = ", ";
    }
    text += ']';
  }
  if (const auto* const object = value.get_if<Value::Object>()) {
    text += '{';
    for (const Member& member : *object) {
      text += separator;
      text += "'" + member.name + "': ";
      write(member.value, text);
      separator = ", ";
    }
    text += '}';
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value document() {
    Value value = any(0);
    skip_space();
    if (at_ < text_.size()) fail("something behind its end");
    return value;
  }

 private:
  std::string_view text_;
  size_t at_ = 0;

  [[noreturn]] void fail(const std::string& what) const {
    throw std::invalid_argument("damaged JSON: " + what + " at byte " + std::to_string(at_));
  }
  // 0 past the end, which no JSON may hold outside of a string.
  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (next() == ' ' || next() == '\t' || next() == '\n' || next() == '\r') ++at_;
  }
  bool take(char wanted) {
    skip_space();
    if (next() != wanted) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  Value any(int depth) {
    if (depth > kMostNested) fail("nested too deeply");
    skip_space();
    if (take_word("null")) return {nullptr};
    if (take_word("true")) return {true};
    if (take_word("false")) return {false};
    if (next() == '"') return {string()};
    if (take('[')) return {list(depth)};
    if (take('{')) return {object(depth)};
    return number();
  }

  Value::List list(int depth) {
    Value::List found;
    if (take(']')) return found;
    do {
      found.push_back(any(depth + 1));
    } while (take(','));
    if (!take(']')) fail("expected , or ]");
    return found;
  }

  Value::Object object(int depth) {
    Value::Object found;
    if (take('}')) return found;
    do {
      skip_space();
      if (next() != '"') fail("expected a name");
      std::string name = string();
      for (const Member& member : found) {
        if (member.name == name) fail("a name that was there before");
      }
      if (!take(':')) fail("expected :");
      found.push_back({std::move(name), any(depth + 1)});
    } while (take(','));
    if (!take('}')) fail("expected , or }");
    return found;
  }

  Value number() {
    const size_t start = at_;
    const auto digits = [&] {
      const size_t first = at_;
      while (next() >= '0' && next() <= '9') ++at_;
      if (at_ == first) fail("expected a value");
      return at_ - first;
    };
    if (next() == '-') ++at_;
    const bool zero = next() == '0';
    if (digits() > 1 && zero) fail("a number that begins with 0");
    bool whole = true;
    if (next() == '.') {
      whole = false;
      ++at_;
      digits();
    }
    if (next() == 'e' || next() == 'E') {
      whole = false;
      ++at_;
      if (next() == '+' || next() == '-') ++at_;
      digits();
    }
    const char *const first = text_.data() + start, *const last = text_.data() + at_;
    int64_t integer = 0;
    double real = 0;
    const std::errc error =
        whole ? std::from_chars(first, last, integer).ec : std::from_chars(first, last, real).ec;
    if (error != std::errc()) fail("a number out of range");
    if (whole) return {integer};
    return {real};
  }

  unsigned hexadecimal() {
    unsigned code = 0;
    if (at_ + 4 > text_.size()) fail("expected four hexadecimal digits");
    const char* const first = text_.data() + at_;
    if (std::from_chars(first, first + 4, code, 16).ptr != first + 4 || *first == '-') {
      fail("expected four hexadecimal digits");
    }
    at_ += 4;
    return code;
  }

  static void add_utf8(unsigned code, std::string& to) {
    const auto add = [&](unsigned byte) { to += static_cast<char>(byte); };
    if (code < 0x80) return add(code);
    if (code < 0x800) {
      add(0xC0 | code >> 6);
    } else if (code < 0x10000) {
      add(0xE0 | code >> 12);
      add(0x80 | (code >> 6 & 0x3F));
    } else {
      add(0xF0 | code >> 18);
      add(0x80 | (code >> 12 & 0x3F));
      add(0x80 | (code >> 6 & 0x3F));
    }
    add(0x80 | (code & 0x3F));
  }

  std::string string() {
    std::string found;
    for (++at_; next() != '"'; ++at_) {
      if (at_ >= text_.size() || static_cast<unsigned char>(next()) < 32) fail("an open string");
      if (next() != '\\') {
        found += next();
        continue;
      }
      ++at_;
      constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
      const size_t which = letters.find(next());
      if (which != std::string_view::npos && at_ < text_.size()) {
        found += meant[which];
        continue;
      }
      if (next() != 'u') fail("an unknown escape");
      ++at_;
      unsigned code = hexadecimal();
      if (code >= 0xD800 && code < 0xDC00 && take_word("\\u")) {
        const unsigned low = hexadecimal();
        if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else if (code >= 0xD800 && code < 0xE000) {
        fail("half of a surrogate pair");
      }
      add_utf8(code, found);
      --at_;
    }
    ++at_;
    return found;
  }
};

}  // namespace

Value::Value() = default;
Value::Value(Content given) : content(std::move(given)) {}
Value::Value(const Value&) = default;
Value::Value(Value&&) noexcept = default;
Value& Value::operator=(const Value&) = default;
Value& Value::operator=(Value&&) noexcept = default;
Value::~Value() = default;

const Value* Value::find(std::string_view name) const {
  const auto* const object = get_if<Object>();
  if (object == nullptr) return nullptr;
  for (const Member& member : *object) {
    if (member.name == name) return &member.value;
  }
  return nullptr;
}

std::string Value::shown() const {
  std::string text;
  write(*this, text);
  return text.size() <= kMostShown ? text : text.substr(0, kMostShown - 3) + "...";
}

Value parse_json(std::string_view text) { return Parser(text).document(); }

}  // namespace fastltc::model
