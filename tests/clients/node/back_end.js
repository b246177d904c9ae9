// Clients of back ends that answer a call by a callback: those of the provisioning service and of the registry.
'use strict';

const MAKE = {
  provisioning: (login) => require('azure-iot-provisioning-service').ProvisioningServiceClient.fromConnectionString(login),
  registry: (login) => require('azure-iothub').Registry.fromConnectionString(login),
};

// With a callback, not a promise: `runBulkEnrollmentOperation` never keeps the promise that it gives.
function called(object, method, args) {
  return new Promise((resolve, reject) => {
    object[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
  });
}

// {client, login, method, args}: what the method of that name calls back with.
exports.call = ({ client, login, method, args }) => called(MAKE[client](login), method, args);

// The same for a method that makes a query: its pages, all of them.
exports.pages = async ({ client, login, method, args }) => {
  const query = MAKE[client](login)[method](...args);
  const pages = [];
  while (query.hasMoreResults) {
    pages.push(await called(query, 'next', []));
  }
  return pages;
};
