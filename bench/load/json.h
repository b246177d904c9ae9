/* The little of JSON that an answer to a registration needs. */
#ifndef LOAD_JSON_H
#define LOAD_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* The first member called `name` when its value is a string; false when there is none or it does not fit. */
bool json_text(const char *json, const char *name, char *value, size_t room);

#endif
