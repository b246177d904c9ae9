/* The device list: one line a device, five fields between tabs, "-" for what it does not have.

       client id, user name, password, certificate (base64 of DER), key (base64 of PKCS #8 DER)

   In the user name "{id}" stands for the client id. Behind the certificate, in the same field, may stand those of its
   issuers, which the device sends along. */
#ifndef LOAD_DEVICES_H
#define LOAD_DEVICES_H

#include <openssl/ssl.h>
#include <stddef.h>

struct device {
    char *id, *user_name, *password; /* NULL: none */
    X509 *certificate;
    STACK_OF(X509) *issuers; /* NULL: none */
    EVP_PKEY *key;
};

struct devices {
    struct device *all;
    size_t count;
};

/* The first `at_most` devices of the file, 0: all. Everything is parsed here, before any clock runs. */
struct devices devices_read(const char *path, size_t at_most);

/* A copy of `text` with each "{id}" replaced. */
char *with_id(const char *text, const char *id);

#endif
