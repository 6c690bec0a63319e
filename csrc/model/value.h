// What a model is described by: null, booleans, numbers, texts, lists and objects, as in JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fastltc::model {

struct Member;

struct Value {
  using List = std::vector<Value>;
  using Object = std::vector<Member>;  // in the order in which they were given

  using Content = std::variant<std::nullptr_t, bool, int64_t, double, std::string, List, Object>;

  Content content;

  // Where Member is complete: before that, a list of them can be named and no more.
  Value();
  Value(Content given);
  Value(const Value&);
  Value(Value&&) noexcept;
  Value& operator=(const Value&);
  Value& operator=(Value&&) noexcept;
  ~Value();

  template <typename T>
  const T* get_if() const {
    return std::get_if<T>(&content);
  }
  bool is_null() const { return get_if<std::nullptr_t>() != nullptr; }

  // The member of an object; null where this is none or has none of that name.
  const Value* find(std::string_view name) const;

  // As Python writes it, cut to what fits a message.
  std::string shown() const;
};

struct Member {
  std::string name;
  Value value;
};

// The value of a JSON text in UTF-8. Throws std::invalid_argument: damaged or nested more than 64
// deep, a number that no int64 or finite double holds, a name twice in an object.
Value parse_json(std::string_view text);

}  // namespace fastltc::model
