#define OPENSSL_SUPPRESS_DEPRECATED /* engines: see take_short_way() */
#include "tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#include "report.h"

#if OPENSSL_VERSION_NUMBER < 0x30200000L && !defined OPENSSL_NO_ENGINE
#include <openssl/engine.h>

static int offer_ec(ENGINE *engine, EVP_PKEY_METHOD **method, const int **kinds, int kind)
{
    static const int ours[] = {EVP_PKEY_EC};
    (void)engine;
    if (method == NULL) {
        *kinds = ours;
        return 1;
    }
    *method = (EVP_PKEY_METHOD *)EVP_PKEY_meth_find(kind);
    return *method != NULL;
}

/* OpenSSL 3.0 builds a chain of decoders anew for each public key it reads, which costs a client a third of its
   handshake. A key type that an engine offers is read the short way of OpenSSL 1.1; so this engine offers EC keys,
   with OpenSSL's own methods. Later releases read keys fast by themselves. */
static void take_short_way(void)
{
    static ENGINE *engine; /* the registration keeps no hold of it */
    engine = ENGINE_new();
    if (engine == NULL || ENGINE_set_id(engine, "short-way") != 1 ||
        ENGINE_set_pkey_meths(engine, offer_ec) != 1 || ENGINE_register_pkey_meths(engine) != 1)
        die("TLS: %s", tls_reason());
}
#else
static void take_short_way(void)
{
}
#endif

const char *tls_reason(void)
{
    static char reason[256];
    unsigned long code = ERR_get_error();
    if (code == 0)
        return errno != 0 ? strerror(errno) : "the peer closed the connection";
    ERR_error_string_n(code, reason, sizeof reason);
    return reason;
}

static int version_number(const char *version)
{
    if (strcmp(version, "1.2") == 0)
        return TLS1_2_VERSION;
    if (strcmp(version, "1.3") == 0)
        return TLS1_3_VERSION;
    if (strcmp(version, "any") == 0)
        return 0;
    die("--tls is 1.2, 1.3 or any, not %s", version);
}

static int accept_any_chain(X509_STORE_CTX *chain, void *unused)
{
    (void)chain;
    (void)unused;
    return 1;
}

static void set_trust(SSL_CTX *tls, const char *ca)
{
    if (ca == NULL) {
        SSL_CTX_set_cert_verify_callback(tls, accept_any_chain, NULL);
        return;
    }
    if (SSL_CTX_load_verify_locations(tls, ca, NULL) != 1)
        die("%s: %s", ca, tls_reason());
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
}

SSL_CTX *tls_context(const char *version, const char *ca)
{
    int number = version_number(version);
    take_short_way();
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (tls == NULL || SSL_CTX_set_min_proto_version(tls, number != 0 ? number : TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(tls, number) != 1)
        die("TLS: %s", tls_reason());
    set_trust(tls, ca);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF); /* every handshake is a full one */
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One read for many records: a server that answers each message with a record of its own would otherwise cost
       the load two system calls an answer. */
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, 65536);
    return tls;
}
