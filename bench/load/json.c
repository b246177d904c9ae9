#include "json.h"

#include <stdio.h>
#include <string.h>

bool json_text(const char *json, const char *name, char *value, size_t room)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *at = strstr(json, quoted);
    if (at == NULL)
        return false;
    at += strlen(quoted);
    at += strspn(at, " \t\r\n:");
    size_t length = *at == '"' ? strcspn(++at, "\"") : room;
    if (length >= room)
        return false;
    memcpy(value, at, length);
    value[length] = '\0';
    return true;
}
