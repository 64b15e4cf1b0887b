# A server with its model in it: `make image-model BENTO=FOLDER`, the folder of a Bento.
ARG SERVING=metalayer-serving
FROM ${SERVING}
COPY . /bento
CMD ["metalayer", "serve", "--bento", "/bento"]
