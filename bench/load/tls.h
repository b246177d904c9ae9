/* The client's side of TLS, made as cheap for the load as it can be without changing what the server has to do. */
#ifndef LOAD_TLS_H
#define LOAD_TLS_H

#include <openssl/ssl.h>

/* `version`: "1.2", "1.3" or "any". With `ca` (PEM file) the server's certificate is verified as a device would;
   NULL: it is not, though its key still is, by the handshake itself. */
SSL_CTX *tls_context(const char *version, const char *ca);

/* Why the latest call failed, in OpenSSL's words or the system's. */
const char *tls_reason(void);

#endif
