require 'json'
require 'net/http'

$stdout.sync = true
puts "Ruby Net::HTTP #{RUBY_VERSION}".to_json
$stdin.each_line do |line|
  way, size, *urls = line.split
  body = '0123456789abcdef' * (size.to_i / 16)
  place = URI(urls.first)
  seen = []
  begin
    Net::HTTP.start(place.host, place.port) do |http|
      http.continue_timeout = 1
      urls.each do |url|
        request = Net::HTTP::Put.new(URI(url).path)
        request['Expect'] = '100-continue' if way == 'ask'
        request['Authorization'] = 'Bearer letmein'
        request.body = body
        request.content_type = 'application/octet-stream'
        seen << { status: http.request(request).code.to_i, url: url }
      end
    end
  rescue StandardError => e
    seen << { status: e.class.name, message: e.message }
  end
  puts seen.to_json
end
