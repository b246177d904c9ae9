#define _GNU_SOURCE
#include "devices.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "report.h"

char *with_id(const char *text, const char *id)
{
    struct buffer result = {0};
    const char *mark;
    while ((mark = strstr(text, "{id}")) != NULL) {
        buffer_add(&result, text, (size_t)(mark - text));
        buffer_add(&result, id, strlen(id));
        text = mark + strlen("{id}");
    }
    buffer_add(&result, text, strlen(text) + 1);
    return (char *)result.bytes;
}

/* The DER behind a base64 field; NULL for "-". The caller frees it. */
static uint8_t *field_der(const char *field, long *length)
{
    size_t text = strlen(field);
    if (strcmp(field, "-") == 0)
        return NULL;
    uint8_t *der = malloc(text);
    int got = der != NULL ? EVP_DecodeBlock(der, (const uint8_t *)field, (int)text) : -1;
    if (got < 0 || text < 4)
        die("device list: a field is not base64: %.20s…", field);
    *length = got - (field[text - 1] == '=') - (field[text - 2] == '=');
    return der;
}

static void read_certificates(struct device *device, const char *field)
{
    long length = 0;
    uint8_t *der = field_der(field, &length);
    const uint8_t *cursor = der;
    while (cursor < der + length) {
        X509 *certificate = d2i_X509(NULL, &cursor, der + length - cursor);
        if (certificate == NULL)
            die("device list: not a certificate: %.20s…", field);
        if (device->certificate == NULL) {
            device->certificate = certificate;
            continue;
        }
        if (device->issuers == NULL)
            device->issuers = sk_X509_new_null();
        sk_X509_push(device->issuers, certificate);
    }
    free(der);
}

static EVP_PKEY *read_key(const char *field)
{
    long length = 0;
    uint8_t *der = field_der(field, &length);
    const uint8_t *cursor = der;
    EVP_PKEY *key = der != NULL ? d2i_AutoPrivateKey(NULL, &cursor, length) : NULL;
    if (der != NULL && key == NULL)
        die("device list: not a private key");
    free(der);
    return key;
}

static struct device read_device(char *line, const char *path)
{
    char *fields[5];
    for (int i = 0; i < 5; i++) {
        fields[i] = strsep(&line, "\t");
        if (fields[i] == NULL || *fields[i] == '\0')
            die("%s: a line has fewer than five fields", path);
    }
    struct device device = {.id = strdup(fields[0])};
    device.user_name = strcmp(fields[1], "-") != 0 ? with_id(fields[1], device.id) : NULL;
    device.password = strcmp(fields[2], "-") != 0 ? strdup(fields[2]) : NULL;
    read_certificates(&device, fields[3]);
    device.key = read_key(fields[4]);
    return device;
}

struct devices devices_read(const char *path, size_t at_most)
{
    struct devices devices = {0};
    struct buffer found = {0};
    char *line = NULL;
    size_t room = 0;
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    if (file == NULL)
        die("--devices wants a readable device list");
    while ((at_most == 0 || devices.count < at_most) && getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        struct device device = read_device(line, path);
        buffer_add(&found, &device, sizeof device);
        devices.count++;
    }
    free(line);
    fclose(file);
    if (devices.count < at_most || devices.count == 0)
        die("%s: %zu devices, %zu are needed", path, devices.count, at_most != 0 ? at_most : 1);
    devices.all = (struct device *)found.bytes;
    return devices;
}
